// CUDA's built-in vector types, as far as kernels here use them, with CUDA's alignment.
#pragma once

#define FV_VECTOR_TYPES(T, name, align_of_2, align_of_4)             \
  struct alignas(align_of_2) name##2 { T x, y; };                    \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(align_of_4) name##4 { T x, y, z, w; };              \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

FV_VECTOR_TYPES(unsigned char, uchar, 2, 4)
FV_VECTOR_TYPES(unsigned short, ushort, 4, 8)
FV_VECTOR_TYPES(int, int, 8, 16)
FV_VECTOR_TYPES(unsigned, uint, 8, 16)
FV_VECTOR_TYPES(float, float, 8, 16)
FV_VECTOR_TYPES(double, double, 16, 16)
#undef FV_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
