// channels_last: vectors of channels. NCHW: vectors of neighbouring windows where all of their taps lie inside the row,
// windows one by one at the border. Backward: a thread owns a plane, or 64 channels of an image.
#include "max_pool2d.h"

#include <type_traits>
#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

// The maxima of `count` windows or channels side by side; p: first pixel of tap 0, step: memory between the lanes.
template <class T, class F>
FV_HD void pool_lanes(const MaxPoolShape& s, const T* p, Taps rows, Taps columns, int64_t step, int64_t count,
                      F&& store) {
  using A = Accum<T>;
  Vec<A> best(A(-__builtin_huge_val()));
  IndexVec<A> taps = all_lanes<A>(-1);
  bool first = true;
  for (int64_t ky = rows.begin; ky < rows.end; ++ky)
    for (int64_t kx = columns.begin; kx < columns.end; ++kx, first = false) {
      const T* at = p + (ky * s.g.dilation_y * s.width + kx * s.g.dilation_x) * s.channels;
      const Vec<A> v = load_strided(at, step, count);
      const int64_t tap = ky * s.g.kernel_x + kx;
      const auto wins = either(v > best, !(v == v));
      best = first ? v : select(wins, v, best);
      taps = first ? all_lanes<A>(tap) : select(wins, tap, taps);
    }
  store(best, taps);
}

template <class T, class Index>
void pool_row(const MaxPoolShape& s, const T* plane, int64_t oy, T* out, Index* index) {
  using A = Accum<T>;
  constexpr int64_t kLanes = Vec<A>::kLanes;
  const int64_t y = oy * s.g.stride_y - s.g.padding_y;
  const Taps rows = taps_inside(y, s.g.kernel_y, s.g.dilation_y, s.height);
  int64_t ox = 0;
  while (ox < s.out_w) {
    const int64_t x = ox * s.g.stride_x - s.g.padding_x;
    const T* p = plane + (y * s.width + x) * s.channels;
    if (s.channels > 1) {
      const Taps columns = taps_inside(x, s.g.kernel_x, s.g.dilation_x, s.width);
      for (int64_t c = 0; c < s.channels; c += kLanes) {
        const int64_t count = min_of(kLanes, s.channels - c);
        pool_lanes(s, p + c, rows, columns, 1, count, [&](const Vec<A>& best, const IndexVec<A>& taps) {
          const int64_t i = ox * s.channels + c;
          store_vector(out + i, best, count);
          for (int64_t k = 0; k < count; ++k) store_tap(s, oy, ox, taps[k], index + i + k);
        });
      }
      ++ox;
      continue;
    }
    // Windows from here on that lie inside the row.
    const int64_t last = s.width - 1 - (s.g.kernel_x - 1) * s.g.dilation_x;
    const int64_t inside = x < 0 || x > last ? 0 : min_of((last - x) / s.g.stride_x + 1, s.out_w - ox);
    if (inside == 0) {
      const auto best = maximum_at(s, plane, oy, ox);
      out[ox] = from_accum<T>(best.value);
      store_tap(s, oy, ox, best.tap, index + ox);
      ++ox;
      continue;
    }
    const int64_t count = min_of(kLanes, inside);
    pool_lanes(s, p, rows, Taps{0, s.g.kernel_x}, s.g.stride_x, count,
               [&](const Vec<A>& best, const IndexVec<A>& taps) {
                 store_vector(out + ox, best, count);
                 for (int64_t k = 0; k < count; ++k) store_tap(s, oy, ox + k, taps[k], index + ox + k);
               });
    ox += count;
  }
}

}  // namespace

template <class T, class Index, class Isa>
void max_pool2d(const MaxPoolShape& s, const T* input, T* out, Index* index, const Cpu<Isa>& exec) {
  exec(s.planes * s.out_h, 1 + 8192 / (s.out_row() * s.g.kernel_y * s.g.kernel_x + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      pool_row(s, input + k / s.out_h * s.in_plane(), k % s.out_h, out + k * s.out_row(), index + k * s.out_row());
  });
}

template <class T, class Index, class Isa>
void max_pool2d_backward(const MaxPoolShape& s, const T* grad, const Index* index, T* grad_input,
                         const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t chunk = 64, chunks = ceil_div(s.channels, chunk);
  exec(s.planes * chunks, 1 + 8192 / (s.height * s.width * min_of(chunk, s.channels) + 1),
       [&](int64_t begin, int64_t end) {
         std::vector<A> sums;  // for 16-bit types
         for (int64_t task = begin; task < end; ++task) {
           const int64_t c0 = task % chunks * chunk, count = min_of(chunk, s.channels - c0);
           T* to = grad_input + task / chunks * s.in_plane() + c0;
           A* sum;
           int64_t step = s.channels;  // between pixels
           if constexpr (std::is_same_v<T, A>) {
             sum = to;
             for (int64_t i = 0; i < s.height * s.width; ++i) memset(sum + i * step, 0, size_t(count) * sizeof(A));
           } else {
             sums.assign(size_t(s.height * s.width * count), A(0));
             sum = sums.data();
             step = count;
           }
           const int64_t from = task / chunks * s.out_plane() + c0;
           for (int64_t o = 0, oy = 0; oy < s.out_h; ++oy)
             for (int64_t ox = 0; ox < s.out_w; ++ox, ++o)
               for (int64_t c = 0; c < count; ++c) {
                 const int64_t at = stored_position(s, oy, ox, index[from + o * s.channels + c]);
                 if (at >= 0) sum[at * step + c] += to_accum(grad[from + o * s.channels + c]);
               }
           if constexpr (!std::is_same_v<T, A>)
             for (int64_t i = 0; i < s.height * s.width; ++i)
               for (int64_t c = 0; c < count; ++c) to[i * s.channels + c] = from_accum<T>(sum[i * count + c]);
         }
       });
}

#define INSTANTIATE_INDEX(T, Index)                                                    \
  template void max_pool2d(const MaxPoolShape&, const T*, T*, Index*, const CpuExec&); \
  template void max_pool2d_backward(const MaxPoolShape&, const T*, const Index*, T*, const CpuExec&);
#define INSTANTIATE(T) INSTANTIATE_INDEX(T, uint8_t) INSTANTIATE_INDEX(T, int64_t)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_INDEX

}  // namespace fastvision
