// The fragments are those of the PTX ISA, chapter "Matrix Fragments for mma": lane = 4 * group + member.
#include "../kernels/common.h"
#include "warp.h"

namespace fastvision::emulator {
namespace {

struct Tiles {
  float a[16][16], b[16][8];
};

// Half of a register, as a number.
float decode(MatrixType type, std::uint32_t pair, int half) {
  const auto bits = std::uint16_t(pair >> 16 * half);
  return type == MatrixType::half ? half_to_float(bits) : bfloat16_to_float(bits);
}

void unpack(MatrixType type, int lane, const std::uint32_t* a, const std::uint32_t* b, Tiles& tiles) {
  const int group = lane / 4, member = lane % 4;
  if (type == MatrixType::tf32) {  // the hardware ignores the low 13 bits
    for (int i = 0; i < 4; ++i) tiles.a[group + i % 2 * 8][member + i / 2 * 4] = bit_cast<float>(a[i] & 0xffffe000u);
    for (int i = 0; i < 2; ++i) tiles.b[member + i * 4][group] = bit_cast<float>(b[i] & 0xffffe000u);
    return;
  }
  for (int i = 0; i < 8; ++i)
    tiles.a[group + i / 2 % 2 * 8][member * 2 + i % 2 + i / 4 * 8] = decode(type, a[i / 2], i % 2);
  for (int i = 0; i < 4; ++i) tiles.b[member * 2 + i % 2 + i / 2 * 8][group] = decode(type, b[i / 2], i % 2);
}

}  // namespace

void multiply_accumulate(MatrixType type, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         const float (&c)[4], const Location& here) {
  struct Operand {
    MatrixType type;
    const std::uint32_t *a, *b;
    const float* c;
    float* d;
  } mine{type, a, b, c, d};
  const auto combine = [](Lanes<Operand> lanes) {
    Tiles tiles;
    const MatrixType type = lanes[0].type;
    lanes.for_each([&](Operand& lane, int number) { unpack(type, number, lane.a, lane.b, tiles); });
    const int depth = type == MatrixType::tf32 ? 8 : 16;
    lanes.for_each([&](Operand& lane, int number) {
      for (int i = 0; i < 4; ++i) {
        const int row = number / 4 + i / 2 * 8, col = number % 4 * 2 + i % 2;
        double sum = lane.c[i];  // exact products, rounded once; hardware rounds in some other way
        for (int k = 0; k < depth; ++k) sum += double(tiles.a[row][k]) * double(tiles.b[k][col]);
        lane.d[i] = float(sum);
      }
    });
  };
  static const char* const kNames[] = {"mma bf16", "mma f16", "mma tf32"};
  meet({kNames[int(type)], 0xffffffffu, 0, false, true}, mine, combine, here);
}

void load_matrices(bool transposed, std::uint32_t (&fragment)[4], const std::uint32_t (&row)[4], const Location& here) {
  struct Operand {
    bool transposed;
    const std::uint32_t* row;
    std::uint32_t* fragment;
  } mine{transposed, row, fragment};
  const auto combine = [](Lanes<Operand> lanes) {
    lanes.for_each([&](Operand& lane, int number) {
      for (int matrix = 0; matrix < 4; ++matrix) {
        std::uint32_t pair = 0;
        for (int half = 0; half < 2; ++half) {
          const int along = number / 4, across = number % 4 * 2 + half;
          const int r = lane.transposed ? across : along, c = lane.transposed ? along : across;
          const std::uint32_t element = lanes[matrix * 8 + r].row[c / 2] >> 16 * (c % 2) & 0xffffu;
          pair |= element << 16 * half;
        }
        lane.fragment[matrix] = pair;
      }
    });
  };
  meet({transposed ? "ldmatrix.trans" : "ldmatrix", 0xffffffffu, 0, false, true}, mine, combine, here);
}

}  // namespace fastvision::emulator
