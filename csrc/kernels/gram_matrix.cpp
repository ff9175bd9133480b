// Blocks of 256 x 256 results over a part of the pixels are computed 64 pixels at a time, from copies of the features
// that stay in the cache: in memory their rows lie far apart, often at powers of two. Where such blocks are few and
// their unequal work (those on the diagonal have half of it) would not divide among threads, they have 128 x 128. Up to
// 32 channels: gram_few_channels.h.
#include "gram_matrix.h"

#include <algorithm>
#include <vector>

#include "gram_few_channels.h"
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

// Rows [begin, end), as far as there are such, with 64 numbers to a row.
template <class T>
void pack(const Tile<T>& tile, int64_t begin, int64_t end, Accum<T>* to) {
  for (int64_t r = begin; r < min_of(end, tile.rows); ++r)
    copy_numbers(tile.first + r * tile.stride, tile.width, to + r * kTile);
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
// copied, a few rows at a time, of which the cache can hold no more where they lie at powers of two.
template <int64_t kBlock, class T, class A>
void add_triangle(int64_t channels, int64_t depth, Factor<A> x, const A* y, A* sums, const Tile<T>& next,
                  A* packed_next) {
  constexpr int64_t kRows = kProductRows;
  prefetch(next, 0, kRows);
  for (int64_t r = 0; r < channels; r += kRows) {
    prefetch(next, r + kRows, r + 2 * kRows);
    const int64_t c = r / kLanes<A> * kLanes<A>;
    const Factor<A> rows{x.at + r * x.by_row, x.by_row, x.by_depth};
    add_tile<kBlock>(min_of(kRows, channels - r), channels - c, depth, rows, y + c, sums + r * kBlock + c);
    pack(next, r, r + kRows, packed_next);
  }
  pack(next, ceil_div(channels, kRows) * kRows, kTile, packed_next);
}

template <int64_t kBlock, class T>
void sum_piece(const GramShape& s, const GramPiece& piece, const T* x, const T* y, std::vector<Accum<T>>& scratch,
               Accum<T>* partial) {
  using A = Accum<T>;
  const int64_t rows = min_of(s.rows - piece.row, kBlock), columns = min_of(s.columns - piece.column, kBlock);
  const int64_t packed = kBlock * kTile;
  scratch.resize(size_t(3 * packed + rows * kBlock));
  A *packed_x = scratch.data(), *next_x = packed_x + packed;
  A *const packed_y = next_x + packed, *const sums = packed_y + packed;
  for (int64_t i = 0; i < rows * kBlock; ++i) sums[i] = A(0);

  const bool diagonal = s.symmetric && piece.row == piece.column;
  const int64_t first = piece.part * s.pixels_per_part(), end = min_of(first + s.pixels_per_part(), s.pixels);
  for (int64_t p = first; p < end; p += kTile) {
    const int64_t depth = min_of(kTile, end - p);
    const auto tile_of_x = [&](int64_t r, int64_t pixel) {
      return Tile<T>(s, x, s.rows, piece.row + r, pixel, min_of(pixel + kTile, end));
    };
    if (diagonal && p > first) std::swap(packed_x, next_x);
    else
      for (int64_t r = 0; r < rows; r += kTile) pack(tile_of_x(r, p), 0, kTile, packed_x + r * kTile);
    const A* const of_y = diagonal && s.channels_last ? packed_x : packed_y;
    for (int64_t c = 0; c < columns; c += kTile) {
      const Tile<T> tile(s, y, s.columns, piece.column + c, p, p + depth);
      A* const to = packed_y + c * kTile;
      if (!s.channels_last && diagonal) transpose(packed_x + c * kTile, kTile, tile.rows, depth, to, kTile);
      else if (!s.channels_last) transpose(tile.first, tile.stride, tile.rows, depth, to, kTile);
      else if (!diagonal) pack(tile, 0, kTile, to);
    }
    for (int64_t r = 0; r < rows; r += kTile) {
      const Factor<A> factor{packed_x + r * kTile, s.channels_last ? 1 : kTile, s.channels_last ? kTile : 1};
      const int64_t height = min_of(kTile, rows - r);
      for (int64_t c = diagonal ? r : 0; c < columns; c += kTile) {
        A* const to = sums + r * kBlock + c;
        if (diagonal && c == r)
          add_triangle<kBlock>(height, depth, factor, of_y + c * kTile, to, tile_of_x(r, p + kTile),
                               next_x + r * kTile);
        else add_tile<kBlock>(height, min_of(kTile, columns - c), depth, factor, of_y + c * kTile, to);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t c = diagonal ? r / kTile * kTile : 0;
    std::copy_n(sums + r * kBlock + c, columns - c, partial + (piece.row + r) * s.columns + piece.column + c);
  }
}

template <int64_t kBlock, class T, class Isa>
void sum_blocks(const GramShape& s, const T* x, const T* y, Accum<T>* partial, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t parts = s.parts();
  exec(s.batch * s.tiles(kBlock) * parts, 1, [&](int64_t begin, int64_t end) {
    std::vector<Accum<T>> scratch;
    for (int64_t k = begin; k < end; ++k) {
      const GramPiece piece = gram_piece<kBlock>(s, k, parts);
      const T *const of_x = x + piece.image * s.rows * s.pixels, *const of_y = y + piece.image * s.columns * s.pixels;
      A* const sums = partial + piece.part * s.results() + piece.image * s.rows * s.columns;
      if (has_few_channels(s)) sum_few(s, piece.part, of_x, of_y, scratch, sums);
      else sum_piece<kBlock>(s, piece, of_x, of_y, scratch, sums);
    }
  });
}
template <class T, class Isa>
void sum_parts(const GramShape& s, const T* x, const T* y, Accum<T>* partial, const Cpu<Isa>& exec) {
  if (s.batch * s.tiles(256) * s.parts() < kFewBlocks) return sum_blocks<128>(s, x, y, partial, exec);
  sum_blocks<256>(s, x, y, partial, exec);
}

// A tile of the result: the sum of its parts, also where it is mirrored. Of a tile on the diagonal the parts have only
// the upper half.
template <class A>
void add_parts(const GramShape& s, const GramPiece& tile, const A* partial, int64_t parts, A* out) {
  const int64_t rows = min_of(s.rows - tile.row, kTile), columns = min_of(s.columns - tile.column, kTile);
  const int64_t image = tile.image * s.rows * s.columns;
  A sums[kTile * kTile];
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = image + (tile.row + r) * s.columns + tile.column;
    for_each_vector<A>(columns, [&](int64_t i, int, auto n) {
      Vec<A> sum(A(0));
      for (int64_t k = 0; k < parts; ++k) sum = sum + load_vector(partial + k * s.results() + at + i, n);
      sum = sum * Vec<A>(A(s.scale));
      store_vector(sums + r * kTile + i, sum);
      store_vector(out + at + i, sum, n);
    });
  }
  if (!s.symmetric) return;
  A* const mirrored = out + image + tile.column * s.columns + tile.row;
  if (tile.column != tile.row) return transpose(sums, kTile, rows, columns, mirrored, s.columns);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < r; ++c) mirrored[r * s.columns + c] = sums[c * kTile + r];
}
template <class T, class Isa>
void products(const GramShape& s, const T* x, const T* y, Accum<T>* partial, Accum<T>* out, const Cpu<Isa>& exec) {
  sum_parts(s, x, y, partial, exec);
  const int64_t parts = s.parts();
  exec(s.batch * s.tiles(), 1 + 16 / parts, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) add_parts(s, gram_piece(s, k, 1), partial, parts, out);
  });
}

// Replaces rows [begin, end) of products, of one image, by their slopes; sums the squared differences of each row.
template <class A>
void differences(const GramShape& s, const A* target, int64_t begin, int64_t end, A* slopes, double* row_sums) {
  constexpr int64_t kSums = 8;
  const Vec<A> factor(A(2 * s.scale / double(s.rows * s.rows)));
  std::vector<A> mirrored(size_t((end - begin) * s.rows)), difference(size_t(ceil_div(s.rows, kSums) * kSums));
  transpose(target + begin, s.rows, s.rows, end - begin, mirrored.data(), s.rows);
  for (int64_t row = begin; row < end; ++row) {
    A* const at = slopes + row * s.rows;
    for_each_vector<A>(s.rows, [&](int64_t i, int, auto n) {
      const Vec<A> product = load_vector(at + i, n);
      const Vec<A> d = product - load_vector(target + row * s.rows + i, n);
      store_vector(difference.data() + i, d, n);
      store_vector(at + i, factor * (d + (product - load_vector(mirrored.data() + (row - begin) * s.rows + i, n))), n);
    });
    double sums[kSums] = {};
    for (size_t i = 0; i < difference.size(); i += kSums)
      for (size_t j = 0; j < kSums; ++j) sums[j] += double(difference[i + j]) * double(difference[i + j]);
    for (int64_t step = kSums / 2; step; step /= 2)
      for (int64_t j = 0; j < step; ++j) sums[j] += sums[j + step];
    row_sums[row] = sums[0];
  }
}

}  // namespace

template <class T, class Isa>
void gram_matrix(const GramShape& s, const T* x, const T* y, Accum<T>* partial, Accum<T>* out, const Cpu<Isa>& exec) {
  products(s, x, y, partial, out, exec);
}

template <class T, class Isa>
void gram_loss(const GramShape& s, const T* x, Accum<T>* partial, const GramLoss<Accum<T>>& loss,
               const Cpu<Isa>& exec) {
  products(s, x, x, partial, loss.slopes, exec);
  constexpr int64_t kRows = kLanes<Accum<T>>;
  const int64_t shares = ceil_div(s.rows, kRows), size = s.rows * s.rows;
  exec(s.batch * shares, 1 + 16384 / (kRows * s.rows + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / shares, row = k % shares * kRows;
      differences(s, loss.target + (loss.one_target ? 0 : image * size), row, min_of(row + kRows, s.rows),
                  loss.slopes + image * size, loss.row_sums + image * s.rows);
    }
  });
  for (int64_t n = 0; n < s.batch; ++n) {
    double sum = 0;
    for (int64_t row = 0; row < s.rows; ++row) sum += loss.row_sums[n * s.rows + row];
    loss.losses[n] = Accum<T>(sum / double(max_of(size, int64_t(1))));
  }
}

#define INSTANTIATE(T)                                                                                   \
  template void gram_matrix(const GramShape&, const T*, const T*, Accum<T>*, Accum<T>*, const CpuExec&); \
  template void gram_loss(const GramShape&, const T*, Accum<T>*, const GramLoss<Accum<T>>&, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
