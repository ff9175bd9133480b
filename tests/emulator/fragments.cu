// The layouts of tensor core fragments against a description of their own: CuTe's layout algebra, which states each as
// shapes and strides from (lane, value) to the position in the tile, column-major (NVIDIA/cutlass,
// include/cute/atom/mma_traits_sm80.hpp and copy_traits_sm75.hpp).
#include <cmath>
#include <random>

#include "harness.h"

using namespace fastvision;

namespace {

struct Mode {
  int size, stride;
};
// Position of value v of a lane: coordinates of mixed radix, lowest first, times strides.
int position(int lane, int v, std::initializer_list<Mode> lane_modes, std::initializer_list<Mode> value_modes) {
  int at = 0;
  for (const Mode& m : lane_modes) at += lane % m.size * m.stride, lane /= m.size;
  for (const Mode& m : value_modes) at += v % m.size * m.stride, v /= m.size;
  return at;
}
int position_a16(int lane, int v) {
  return position(lane, v, {{4, 32}, {8, 1}}, {{2, 16}, {2, 8}, {2, 128}});
}  // 16 x 16
int position_b16(int lane, int v) { return position(lane, v, {{4, 16}, {8, 1}}, {{2, 8}, {2, 64}}); }  // 8 x 16
int position_a8(int lane, int v) { return position(lane, v, {{4, 16}, {8, 1}}, {{2, 8}, {2, 64}}); }   // 16 x 8
int position_b8(int lane, int v) { return position(lane, v, {{4, 8}, {8, 1}}, {{2, 32}}); }            // 8 x 8
int position_c(int lane, int v) { return position(lane, v, {{4, 32}, {8, 1}}, {{2, 16}, {2, 8}}); }    // 16 x 8

template <class T>
__global__ void multiply(const uint32_t* as, const uint32_t* bs, const float* cs, float* ds) {
  const int lane = int(threadIdx.x);
  uint32_t a[4], b[2];
  float c[4], d[4];
  for (int i = 0; i < 4; ++i) a[i] = as[lane * 4 + i], c[i] = cs[lane * 4 + i];
  for (int i = 0; i < 2; ++i) b[i] = bs[lane * 2 + i];
  if constexpr (std::is_same_v<T, float>) mma_m16n8k8_tf32(d, a, b, c);
  else mma_m16n8k16<T>(d, a, b, c);
  for (int i = 0; i < 4; ++i) ds[lane * 4 + i] = d[i];
}

// Small integers: every product and sum is exact in every type, so the result is too.
struct Integers {
  std::mt19937 generator{7};
  float operator()() { return float(std::uniform_int_distribution<int>(-8, 8)(generator)); }
};

template <class T>
void put(Buffer<uint32_t>& registers, int lane, int per_lane, int v, float value) {
  if constexpr (std::is_same_v<T, float>) registers[lane * per_lane + v] = bit_cast<uint32_t>(value);
  else registers[lane * per_lane + v / 2] |= uint32_t(from_accum<T>(value).bits) << 16 * (v % 2);
}

template <class T>
void multiply_matches() {
  constexpr bool kTf32 = std::is_same_v<T, float>;
  constexpr int kDepth = kTf32 ? 8 : 16;
  Integers next;
  std::vector<float> a(16 * kDepth), b(8 * kDepth), c(16 * 8);
  for (float& v : a) v = next();
  for (float& v : b) v = next();
  for (float& v : c) v = next();
  Buffer<uint32_t> as(32 * 4), bs(32 * 2);
  Buffer<float> cs(32 * 4), ds(32 * 4, NAN);
  for (int lane = 0; lane < 32; ++lane) {
    for (int v = 0; v < kDepth / 2; ++v)
      put<T>(as, lane, 4, v, a[kTf32 ? position_a8(lane, v) : position_a16(lane, v)]);
    for (int v = 0; v < kDepth / 4; ++v)
      put<T>(bs, lane, 2, v, b[kTf32 ? position_b8(lane, v) : position_b16(lane, v)]);
    for (int v = 0; v < 4; ++v) cs[lane * 4 + v] = c[position_c(lane, v)];
  }
  run(multiply<T>, 1, 32, 0, as.data(), bs.data(), cs.data(), ds.data());
  for (int lane = 0; lane < 32; ++lane)
    for (int v = 0; v < 4; ++v) {
      const int at = position_c(lane, v), row = at % 16, col = at / 16;
      float sum = c[at];
      for (int k = 0; k < kDepth; ++k) sum += a[row + 16 * k] * b[col + 8 * k];
      expect_equal(ds[lane * 4 + v], sum, "lane", lane, "value", v);
    }
}

__global__ void load(const uint16_t* in, uint32_t* out, bool transposed) {
  FV_SHARED(rows, uint16_t[32][8]);
  const int lane = int(threadIdx.x);
  for (int i = 0; i < 8; ++i) rows[lane][i] = in[lane * 8 + i];
  __syncwarp();
  uint32_t fragment[4];
  if (transposed) ldmatrix_x4_trans(fragment, rows[lane]);
  else ldmatrix_x4(fragment, rows[lane]);
  for (int i = 0; i < 4; ++i) out[lane * 4 + i] = fragment[i];
}
void load_matrices() {
  Buffer<uint16_t> in(256);
  for (int i = 0; i < 256; ++i) in[i] = uint16_t(i * 257);
  for (const bool transposed : {false, true}) {
    Buffer<uint32_t> out(128);
    run(load, 1, 32, 0, in.data(), out.data(), transposed);
    for (int lane = 0; lane < 32; ++lane)
      for (int v = 0; v < 8; ++v) {  // CuTe: SM75_U32x4_LDSM_N and SM75_U16x8_LDSM_T, in elements instead of bits
        const int at = transposed ? position(lane, v, {{4, 16}, {8, 1}}, {{2, 8}, {4, 64}})
                                  : position(lane, v, {{32, 2}}, {{2, 1}, {4, 64}});
        expect_equal(out[lane * 4 + v / 2] >> 16 * (v % 2) & 0xffffu, uint32_t(in[at]), "lane", lane, "value", v);
      }
  }
}

// A product of matrices in shared memory, by ldmatrix alone: 16 x 16 times 16 x 8, b stored as 8 rows of 16 (k-major)
// or as 16 rows of 8.
__global__ void multiply_tiles(const BFloat16* a, const BFloat16* b, float* d, bool b_by_rows) {
  FV_SHARED(tile_a, BFloat16[16][16]);
  FV_SHARED(tile_b, BFloat16[128]);
  const int lane = int(threadIdx.x);
  for (int i = lane; i < 32; i += 32) cp_async<16>(&tile_a[i / 2][i % 2 * 8], a + i * 8);
  if (lane < 16) cp_async<16>(&tile_b[lane * 8], b + lane * 8);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  uint32_t fa[4], fb[4];
  ldmatrix_x4(fa, &tile_a[lane % 16][lane / 16 * 8]);
  if (b_by_rows) ldmatrix_x4_trans(fb, &tile_b[lane % 16 * 8]);
  else ldmatrix_x4(fb, &tile_b[lane % 8 * 16 + lane / 8 % 2 * 8]);
  const uint32_t low[2] = {fb[0], fb[1]};
  float sum[4] = {};
  mma_m16n8k16<BFloat16>(sum, fa, low, sum);
  for (int i = 0; i < 4; ++i) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}
void tiles() {
  Integers next;
  std::vector<float> a(256), b(128);  // a[row * 16 + k], b[k * 8 + col]
  for (float& v : a) v = next();
  for (float& v : b) v = next();
  for (const bool b_by_rows : {false, true}) {
    Buffer<BFloat16> stored_a(256), stored_b(128);
    Buffer<float> d(128, NAN);
    for (int i = 0; i < 256; ++i) stored_a[i] = from_accum<BFloat16>(a[i]);
    for (int i = 0; i < 128; ++i) stored_b[i] = from_accum<BFloat16>(b_by_rows ? b[i] : b[i % 16 * 8 + i / 16]);
    run(multiply_tiles, 1, 32, 0, stored_a.data(), stored_b.data(), d.data(), b_by_rows);
    for (int row = 0; row < 16; ++row)
      for (int col = 0; col < 8; ++col) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += a[row * 16 + k] * b[k * 8 + col];
        expect_equal(d[row * 8 + col], sum, "row", row, "column", col);
      }
  }
}

// Copies of every size, the tail filled with zeros, in two groups that are waited for one after the other.
template <int kBytes>
__global__ void copy(const unsigned char* in, unsigned char* out, int source_bytes) {
  FV_SHARED(first, unsigned char[32 * kBytes]);
  FV_SHARED(second, unsigned char[32 * kBytes]);
  const int at = int(threadIdx.x) * kBytes;
  cp_async<kBytes>(first + at, in + at, source_bytes);
  cp_async_commit();
  cp_async<kBytes>(second + at, in + at);
  cp_async_commit();
  cp_async_wait<1>();
  for (int i = 0; i < kBytes; ++i) out[at + i] = first[at + i];
  cp_async_wait_all();
  for (int i = 0; i < kBytes; ++i) out[32 * kBytes + at + i] = second[at + i];
}
template <int kBytes>
void copies_of() {
  Buffer<unsigned char> in(32 * kBytes + 16);
  auto* aligned = in.data() + (16 - reinterpret_cast<uintptr_t>(in.data()) % 16) % 16;
  for (int i = 0; i < 32 * kBytes; ++i) aligned[i] = static_cast<unsigned char>(i * 7 + 1);
  for (int source_bytes = 0; source_bytes <= kBytes; ++source_bytes) {
    Buffer<unsigned char> out(64 * kBytes, 99);
    run(copy<kBytes>, 1, 32, 0, aligned, out.data(), source_bytes);
    for (int i = 0; i < 32 * kBytes; ++i) {
      expect_equal(int(out[i]), i % kBytes < source_bytes ? int(aligned[i]) : 0, "byte", i, "of", source_bytes);
      expect_equal(int(out[32 * kBytes + i]), int(aligned[i]), "byte", i);
    }
  }
}
void copies() {
  copies_of<4>();
  copies_of<8>();
  copies_of<16>();
}

__global__ void round_to_tf32(const float* in, uint32_t* out) { out[threadIdx.x] = to_tf32(in[threadIdx.x]); }
void tf32_rounding() {
  const float inputs[] = {1.f, 1.f + 0x1p-11f, 1.f + 0x1p-12f, -(1.f + 0x1p-11f), 0x1p-140f, 65535.9f, INFINITY, 0.f};
  const float expected[] = {1.f, 1.f + 0x1p-10f, 1.f, -(1.f + 0x1p-10f), 0.f, 65536.f, INFINITY, 0.f};
  Buffer<float> in(8);
  Buffer<uint32_t> out(8);
  for (int i = 0; i < 8; ++i) in[i] = inputs[i];
  run(round_to_tf32, 1, 8, 0, in.data(), out.data());
  for (int i = 0; i < 8; ++i) expect_equal(bit_cast<float>(out[i]), expected[i], "input", i);
}

}  // namespace

std::vector<Case> fragment_cases() {
  return {{"mma_bfloat16", multiply_matches<BFloat16>},
          {"mma_half", multiply_matches<Half>},
          {"mma_tf32", multiply_matches<float>},
          {"ldmatrix", load_matrices},
          {"tiles", tiles},
          {"cp_async", copies},
          {"tf32_rounding", tf32_rounding}};
}
