// Blocks of 256 x 256 results over a part of the pixels are computed 64 pixels at a time, from copies of the features
// that stay in the cache: in memory their rows lie far apart, often at powers of two. Where such blocks are few and
// their unequal work (those on the diagonal have half of it) would not divide among threads, they have 128 x 128.
#include "gram_matrix.h"

#include <vector>

#include "product.h"

namespace fastvision {
namespace {

constexpr int64_t kTile = 64;  // channels and pixels of a tile of features
constexpr int64_t kFewBlocks = 8;

// Up to 64 channels by 64 pixels of an image's features, as rows of memory: of pixels, or in channels_last of channels.
template <class T>
struct Tile {
  const T* first;
  int64_t rows, width, stride;

  Tile(const GramShape& s, const T* features, int64_t all_channels, int64_t channel, int64_t pixel, int64_t end) {
    const int64_t channels = min_of(all_channels - channel, kTile), pixels = max_of(end - pixel, int64_t(0));
    rows = s.channels_last ? pixels : channels;
    width = s.channels_last ? channels : pixels;
    stride = s.channels_last ? all_channels : s.pixels;
    first = features + (s.channels_last ? pixel * stride + channel : channel * stride + pixel);
  }
};

// 64 numbers to a row.
template <class T>
void pack(const Tile<T>& tile, Accum<T>* to) {
  for (int64_t r = 0; r < tile.rows; ++r, to += kTile) {
    const T* from = tile.first + r * tile.stride;
    for_each_vector<Accum<T>>(tile.width,
                              [&](int64_t i, int, auto n) { store_vector(to + i, load_vector(from + i, n), n); });
  }
}
template <class T>
void prefetch(const Tile<T>& tile, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < min_of(end, tile.rows); ++r)
    for (int64_t i = 0; i < tile.width; i += 64 / sizeof(T)) __builtin_prefetch(tile.first + r * tile.stride + i, 0, 2);
}

// Adds the product of two tiles. y: (pixel, channel).
template <int64_t kBlock, class A>
void add_tile(int64_t rows, int64_t columns, int64_t depth, Factor<A> x, const A* y, A* sums) {
  for (int64_t c = 0; c < columns; c += kPanel<A>)
    add_product(rows, min_of(kPanel<A>, columns - c), depth, x, y + c, kTile, sums + c, kBlock);
}
// The same for a tile by itself, only where the column is at least the row, and some below. On the way the next tile is
// brought to the cache.
template <int64_t kBlock, class T, class A>
void add_triangle(int64_t channels, int64_t depth, Factor<A> x, const A* y, A* sums, const Tile<T>& next) {
  for (int64_t r = 0; r < channels; r += kProductRows) {
    prefetch(next, r, r + kProductRows);
    const int64_t c = r / Vec<A>::kLanes * Vec<A>::kLanes;
    const Factor<A> rows{x.at + r * x.by_row, x.by_row, x.by_depth};
    add_tile<kBlock>(min_of(int64_t(kProductRows), channels - r), channels - c, depth, rows, y + c,
                     sums + r * kBlock + c);
  }
}

template <int64_t kBlock, class T>
void sum_piece(const GramShape& s, const GramPiece& piece, const T* x, const T* y, std::vector<Accum<T>>& scratch,
               Accum<T>* partial) {
  using A = Accum<T>;
  const int64_t rows = min_of(s.rows - piece.row, kBlock), columns = min_of(s.columns - piece.column, kBlock);
  const int64_t packed = kBlock * kTile;
  scratch.resize(size_t(2 * packed + rows * kBlock));
  A *const packed_x = scratch.data(), *const packed_y = packed_x + packed, *const sums = packed_y + packed;
  for (int64_t i = 0; i < rows * kBlock; ++i) sums[i] = A(0);

  const bool diagonal = s.symmetric && piece.row == piece.column;
  const A* const of_y = diagonal && s.channels_last ? packed_x : packed_y;
  const int64_t end = min_of((piece.part + 1) * s.pixels_per_part(), s.pixels);
  for (int64_t p = piece.part * s.pixels_per_part(); p < end; p += kTile) {
    const int64_t depth = min_of(kTile, end - p);
    const auto tile_of_x = [&](int64_t r, int64_t pixel) {
      return Tile<T>(s, x, s.rows, piece.row + r, pixel, min_of(pixel + kTile, end));
    };
    for (int64_t r = 0; r < rows; r += kTile) pack(tile_of_x(r, p), packed_x + r * kTile);
    for (int64_t c = 0; c < columns; c += kTile) {
      const Tile<T> tile(s, y, s.columns, piece.column + c, p, p + depth);
      A* const to = packed_y + c * kTile;
      if (!s.channels_last && diagonal) transpose(packed_x + c * kTile, kTile, tile.rows, depth, to, kTile);
      else if (!s.channels_last) transpose(tile.first, tile.stride, tile.rows, depth, to, kTile);
      else if (!diagonal) pack(tile, to);
    }
    for (int64_t r = 0; r < rows; r += kTile) {
      const Factor<A> factor{packed_x + r * kTile, s.channels_last ? 1 : kTile, s.channels_last ? kTile : 1};
      const int64_t height = min_of(kTile, rows - r);
      for (int64_t c = diagonal ? r : 0; c < columns; c += kTile) {
        A* const to = sums + r * kBlock + c;
        if (diagonal && c == r)
          add_triangle<kBlock>(height, depth, factor, of_y + c * kTile, to, tile_of_x(r, p + kTile));
        else add_tile<kBlock>(height, min_of(kTile, columns - c), depth, factor, of_y + c * kTile, to);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = diagonal ? r : 0; c < columns; ++c)
      partial[(piece.row + r) * s.columns + piece.column + c] = sums[r * kBlock + c];
}

template <int64_t kBlock, class T, class Isa>
void sum_blocks(const GramShape& s, const T* x, const T* y, Accum<T>* partial, const Cpu<Isa>& exec) {
  const int64_t parts = s.parts();
  exec(s.batch * s.tiles(kBlock) * parts, 1, [&](int64_t begin, int64_t end) {
    std::vector<Accum<T>> scratch;
    for (int64_t k = begin; k < end; ++k) {
      const GramPiece piece = gram_piece<kBlock>(s, k, parts);
      sum_piece<kBlock>(s, piece, x + piece.image * s.rows * s.pixels, y + piece.image * s.columns * s.pixels, scratch,
                        partial + piece.part * s.results() + piece.image * s.rows * s.columns);
    }
  });
}
template <class T, class Isa>
void sum_parts(const GramShape& s, const T* x, const T* y, Accum<T>* partial, const Cpu<Isa>& exec) {
  if (s.batch * s.tiles(256) * s.parts() < kFewBlocks) return sum_blocks<128>(s, x, y, partial, exec);
  sum_blocks<256>(s, x, y, partial, exec);
}

}  // namespace

template <class T, class Isa>
void gram_matrix(const GramShape& s, const T* x, const T* y, Accum<T>* partial, Accum<T>* out, const Cpu<Isa>& exec) {
  sum_parts(s, x, y, partial, exec);
  const int64_t parts = s.parts();
  exec(s.results(), 1 + 65536 / parts, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = gram_result(s, partial, i, parts);
  });
}

template <class T, class Isa>
void gram_loss(const GramShape& s, const T* x, Accum<T>* partial, const GramLoss<Accum<T>>& loss,
               const Cpu<Isa>& exec) {
  sum_parts(s, x, x, partial, exec);
  const int64_t parts = s.parts();
  exec(s.batch * s.rows, 1 + 65536 / (parts * (s.rows + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      double sum = 0;
      for (int64_t c = 0; c < s.rows; ++c) sum += gram_difference(s, partial, loss, row * s.rows + c, parts);
      loss.row_sums[row] = sum;
    }
  });
  for (int64_t n = 0; n < s.batch; ++n) {
    double sum = 0;
    for (int64_t row = 0; row < s.rows; ++row) sum += loss.row_sums[n * s.rows + row];
    loss.losses[n] = Accum<T>(sum / double(max_of(s.rows * s.rows, int64_t(1))));
  }
}

#define INSTANTIATE(T)                                                                                   \
  template void gram_matrix(const GramShape&, const T*, const T*, Accum<T>*, Accum<T>*, const CpuExec&); \
  template void gram_loss(const GramShape&, const T*, Accum<T>*, const GramLoss<Accum<T>>&, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
