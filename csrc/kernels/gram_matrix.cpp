// Pieces of 64 x 64 results over a part of the pixels are computed 128 pixels at a time, from copies of the features
// that stay in the cache: their rows lie far apart in memory, often at powers of two. Where pixels are neighbours in
// memory, the lanes of a vector are pixels and 16 (or 8) running sums of vectors are in registers; in channels_last the
// lanes are columns of the result.
#include "gram_matrix.h"

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

constexpr int kTile = GramShape::kTile, kDepth = 128;
// Rows and columns (or vectors of columns) of a block of running sums: as many as there are registers for.
constexpr int kRows = kVectorBytes == 64 ? 4 : 2, kColumns = 4;

// Channels [first, first + 64) of pixels [begin, end), with zeros beyond both, as (channel, pixel).
template <class T>
void pack_planes(const GramShape& s, const T* features, int64_t channels, int64_t first, int64_t begin, int64_t end,
                 Accum<T>* to) {
  constexpr int64_t kLanes = Vec<Accum<T>>::kLanes;
  for (int64_t c = 0; c < kTile; ++c) {
    const T* from = features + (first + c) * s.pixels + begin;
    const int64_t count = first + c < channels ? end - begin : 0;
    for (int64_t p = 0; p < kDepth; p += kLanes) {
      Vec<Accum<T>> v(Accum<T>(0));
      if (p + kLanes <= count) v = load_vector(from + p);
      else if (p < count) v = load_vector(from + p, count - p);
      store_vector(to + c * kDepth + p, v);
    }
  }
}
// The same from channels_last features, as (pixel, channel).
template <class T>
void pack_pixels(const T* features, int64_t channels, int64_t first, int64_t begin, int64_t end, Accum<T>* to) {
  constexpr int64_t kLanes = Vec<Accum<T>>::kLanes;
  for (int64_t p = 0; p < kDepth; ++p) {
    const T* from = features + (begin + p) * channels + first;
    const int64_t count = begin + p < end ? channels - first : 0;
    for (int64_t c = 0; c < kTile; c += kLanes) {
      Vec<Accum<T>> v(Accum<T>(0));
      if (c + kLanes <= count) v = load_vector(from + c);
      else if (c < count) v = load_vector(from + c, count - c);
      store_vector(to + p * kTile + c, v);
    }
  }
}

// sums: a vector of lanes to be added up for each result.
template <class A>
void add_planes(const A* x, const A* y, int64_t rows, int64_t columns, bool upper, A* sums) {
  constexpr int64_t kLanes = Vec<A>::kLanes;
  for (int64_t r = 0; r < rows; r += kRows)
    for (int64_t c = upper ? r / kColumns * kColumns : 0; c < columns; c += kColumns) {
      Vec<A> sum[kRows][kColumns];
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) sum[i][j] = load_vector(sums + ((r + i) * kTile + c + j) * kLanes);
      for (int64_t p = 0; p < kDepth; p += kLanes) {
        Vec<A> b[kColumns];
        for (int j = 0; j < kColumns; ++j) b[j] = load_vector(y + (c + j) * kDepth + p);
        for (int i = 0; i < kRows; ++i) {
          const Vec<A> a = load_vector(x + (r + i) * kDepth + p);
          for (int j = 0; j < kColumns; ++j) sum[i][j] = multiply_add(a, b[j], sum[i][j]);
        }
      }
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) store_vector(sums + ((r + i) * kTile + c + j) * kLanes, sum[i][j]);
    }
}
template <class A>
void add_pixels(const A* x, const A* y, int64_t rows, int64_t columns, bool upper, A* sums) {
  constexpr int64_t kLanes = Vec<A>::kLanes, kAcross = kColumns * kLanes;
  for (int64_t r = 0; r < rows; r += kRows)
    for (int64_t c = upper ? r / kAcross * kAcross : 0; c < columns; c += kAcross) {
      Vec<A> sum[kRows][kColumns];
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) sum[i][j] = load_vector(sums + (r + i) * kTile + c + j * kLanes);
      for (int64_t p = 0; p < kDepth; ++p) {
        Vec<A> b[kColumns];
        for (int j = 0; j < kColumns; ++j) b[j] = load_vector(y + p * kTile + c + j * kLanes);
        for (int i = 0; i < kRows; ++i) {
          const Vec<A> a(x[p * kTile + r + i]);
          for (int j = 0; j < kColumns; ++j) sum[i][j] = multiply_add(a, b[j], sum[i][j]);
        }
      }
      for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kColumns; ++j) store_vector(sums + (r + i) * kTile + c + j * kLanes, sum[i][j]);
    }
}

// scratch: two packed blocks of features, then the sums.
template <class T>
void sum_piece(const GramShape& s, const GramPiece& piece, const T* x, const T* y, std::vector<Accum<T>>& scratch,
               Accum<T>* partial) {
  using A = Accum<T>;
  constexpr int64_t kLanes = Vec<A>::kLanes, kPacked = kTile * kDepth;
  const int64_t lanes = s.channels_last ? 1 : kLanes;
  scratch.resize(size_t(2 * kPacked + kTile * kTile * lanes));
  A* packed_x = scratch.data();
  const bool diagonal = s.symmetric && piece.row == piece.column;
  A* packed_y = diagonal ? packed_x : packed_x + kPacked;
  A* sums = packed_x + 2 * kPacked;
  for (int64_t i = 0; i < kTile * kTile * lanes; ++i) sums[i] = A(0);

  const int64_t rows = min_of(s.rows - piece.row, int64_t(kTile));
  const int64_t columns = min_of(s.columns - piece.column, int64_t(kTile));
  const int64_t end = min_of((piece.part + 1) * s.pixels_per_part(), s.pixels);
  for (int64_t p = piece.part * s.pixels_per_part(); p < end; p += kDepth) {
    const int64_t chunk_end = min_of(p + kDepth, end);
    if (s.channels_last) {
      pack_pixels(x, s.rows, piece.row, p, chunk_end, packed_x);
      if (!diagonal) pack_pixels(y, s.columns, piece.column, p, chunk_end, packed_y);
      add_pixels(packed_x, packed_y, rows, columns, diagonal, sums);
    } else {
      pack_planes(s, x, s.rows, piece.row, p, chunk_end, packed_x);
      if (!diagonal) pack_planes(s, y, s.columns, piece.column, p, chunk_end, packed_y);
      add_planes(packed_x, packed_y, rows, columns, diagonal, sums);
    }
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = diagonal ? r : 0; c < columns; ++c) {
      const A* sum = sums + (r * kTile + c) * lanes;
      partial[(piece.row + r) * s.columns + piece.column + c] = lanes == 1 ? *sum : sum_of(load_vector(sum));
    }
}

}  // namespace

template <class T, class Isa>
void gram_matrix(const GramShape& s, const T* x, const T* y, Accum<T>* partial, Accum<T>* out, const Cpu<Isa>& exec) {
  const int64_t parts = s.parts();
  exec(s.batch * s.tiles() * parts, 1, [&](int64_t begin, int64_t end) {
    std::vector<Accum<T>> scratch;
    for (int64_t k = begin; k < end; ++k) {
      const GramPiece piece = gram_piece(s, k, parts);
      sum_piece(s, piece, x + piece.image * s.rows * s.pixels, y + piece.image * s.columns * s.pixels, scratch,
                partial + piece.part * s.results() + piece.image * s.rows * s.columns);
    }
  });
  exec(s.results(), 1 + 65536 / parts, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = gram_result(s, partial, i, parts);
  });
}

#define INSTANTIATE(T) \
  template void gram_matrix(const GramShape&, const T*, const T*, Accum<T>*, Accum<T>*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
