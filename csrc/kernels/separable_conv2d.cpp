// For a tile of pixels and some channels at a time the depthwise result is written to a buffer in the cache, and
// multiplied by the pointwise weights from there; the sums of the tile stay in the cache too. A block of running sums
// is in registers: rows with scalars times columns with vectors. In channels_last pixels are the rows and channels of
// the result the columns, otherwise the other way round, so that both the depthwise stage and the result have lanes
// that are neighbours in memory.
#include "separable_conv2d.h"

#include <algorithm>
#include <vector>

#include "depthwise.h"
#include "factors.h"
#include "product.h"
#include "unrolled.h"

namespace fastvision {
namespace {

constexpr int64_t kTile = 128, kDepth = 128;  // pixels, and channels at a time
constexpr int64_t kShare = 64;                // pixels by which work is divided; half tiles are slower, so few
// Pixels [first, first + kTile) of a plane, vector by vector: which taps meet them. The same for all channels.
template <class A>
struct PlaneTaps {
  struct Entry {
    int64_t index, tap;  // index of the first lane's source pixel
    bool whole;          // all lanes meet the map
    bool direct;         // the lanes are neighbours in the plane, the whole vector is inside it
    bool fetch;          // brings the next channels to the cache
    MaskOf<A, FV_ISA> lanes;
  };
  std::vector<Entry> entries;
  int64_t begin[kTile / kLanes<A> + 1];

  PlaneTaps(const ConvolutionShape& s, int64_t first, int64_t pixels) {
    begin[0] = 0;
    for (int64_t v = 0; v * kLanes<A> < kTile; ++v) {
      for (int64_t tap = 0; tap < s.taps(); ++tap) {
        const int64_t down = tap / s.kernel_x * s.dilation_y - s.padding_y;
        const int64_t right = tap % s.kernel_x * s.dilation_x - s.padding_x;
        Entry e{0, tap, true, true, false, {}};
        bool any = false;
        int64_t start = 0;
        for (int64_t i = 0; i < kLanes<A>; ++i) {
          const int64_t pixel = first + v * kLanes<A> + i;
          const int64_t y = pixel / s.small_w + down, x = pixel % s.small_w + right;
          const bool inside = v * kLanes<A> + i < pixels && y >= 0 && y < s.large_h && x >= 0 && x < s.large_w;
          e.lanes.raw[i] = inside ? -1 : 0;
          e.whole &= inside;
          any |= inside;
          if (i == 0) start = y * s.large_w + x;
          // Where rows of the result and of the source differ in length, lanes are neighbours only within a row.
          else if (inside && y * s.large_w + x != start + i) e.direct = false;
        }
        e.index = start;
        e.direct &= start >= 0 && start + kLanes<A> <= s.large_h * s.large_w;
        e.fetch = e.direct && tap % s.kernel_x == s.kernel_x / 2;
        if (any) entries.push_back(e);
      }
      begin[v + 1] = int64_t(entries.size());
    }
  }
};

// kCount channels of the depthwise result for a tile of their planes. weight and bias: of the first channel.
template <int kCount, class T>
void depthwise_planes(const SeparableShape& s, const PlaneTaps<Accum<T>>& taps, int64_t first, int64_t pixels,
                      const T* plane, const Accum<T>* weight, const Accum<T>* bias, Accum<T>* to,
                      int64_t panel_stride) {
  using A = Accum<T>;
  const ConvolutionShape& d = s.depthwise;
  const int64_t size = d.large_h * d.large_w;
  // The lanes of one vector that meet the map, where they are not neighbours in the plane.
  const auto gather = [&](const auto& e, int64_t v, const T* from) {
    A lanes[kLanes<A>] = {};
    for (int64_t k = 0; k < kLanes<A>; ++k) {
      if (!e.lanes[int(k)]) continue;
      const int64_t pixel = first + v * kLanes<A> + k;
      const int64_t y = pixel / d.small_w + e.tap / d.kernel_x * d.dilation_y - d.padding_y;
      const int64_t column = pixel % d.small_w + e.tap % d.kernel_x * d.dilation_x - d.padding_x;
      lanes[k] = to_accum(from[y * d.large_w + column]);
    }
    return Vec<A>::load(lanes);
  };
  for (int64_t v = 0; v * kLanes<A> < pixels; ++v) {
    Vec<A> sum[kCount];
    unrolled<kCount>([&](auto c) FV_INLINE { sum[c] = Vec<A>(bias ? bias[c] : A(0)); });
    for (int64_t i = taps.begin[v]; i < taps.begin[v + 1]; ++i) {
      const auto& e = taps.entries[size_t(i)];
      Vec<A> x[kCount];
      if (e.fetch)
        unrolled<kCount>([&](auto c) FV_INLINE { __builtin_prefetch(plane + (kCount + c) * size + e.index); });
      if (e.direct) unrolled<kCount>([&](auto c) FV_INLINE { x[c] = load_vector(plane + c * size + e.index); });
      else unrolled<kCount>([&](auto c) FV_INLINE { x[c] = gather(e, v, plane + c * size); });
      unrolled<kCount>([&](auto c) FV_INLINE {
        const Vec<A> next = multiply_add(x[c], Vec<A>(weight[c * d.taps() + e.tap]), sum[c]);
        sum[c] = e.whole ? next : select(e.lanes, next, sum[c]);
      });
    }
    const int64_t column = v * kLanes<A>;
    unrolled<kCount>([&](auto c) FV_INLINE {
      const Vec<A> y = s.depthwise_relu ? relu_of(sum[c]) : sum[c];
      store_vector(to + column / kPanel<A> * panel_stride + c * kPanel<A> + column % kPanel<A>, y);
    });
  }
}

// The factors of all tiles, in the type of the sums.
template <class T>
struct Prepared {
  Factors<T> depthwise, depthwise_bias, pointwise;
  const Accum<T>* bias;
  std::vector<Accum<T>> by_tap;  // channels_last: depthwise weights (taps, channels)
  std::vector<Accum<T>> panels;  // channels_last: pointwise weights (panel of out channels, channel, kPanel)

  Prepared(const SeparableShape& s, const SeparableFactors<T>& f)
      : depthwise(f.depthwise_weight, s.depthwise.weights()),
        depthwise_bias(f.depthwise_bias, f.depthwise_bias ? s.channels() : 0),
        pointwise(f.pointwise_weight, s.out_channels * s.channels()),
        bias(f.depthwise_bias ? depthwise_bias.at : nullptr) {
    using A = Accum<T>;
    if (!s.depthwise.channels_last) return;
    by_tap = fastvision::by_tap(s.depthwise, depthwise.at);
    const int64_t count = ceil_div(s.out_channels, kPanel<A>);
    panels.resize(size_t(count * s.channels() * kPanel<A>));
    for (int64_t p = 0; p < count; ++p)
      transpose(pointwise.at + p * kPanel<A> * s.channels(), s.channels(),
                min_of(kPanel<A>, s.out_channels - p * kPanel<A>), s.channels(),
                panels.data() + p * s.channels() * kPanel<A>, kPanel<A>);
  }
};

// scratch: the depthwise buffer, then the sums.
template <class T>
void pixel_tile(const SeparableShape& s, const DepthwiseAxes& axes, int64_t first, int64_t pixels, const T* image,
                const SeparableFactors<T>& f, const Prepared<T>& prepared, T* out, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const int64_t channels = s.channels(), width = ceil_div(s.out_channels, kPanel<A>) * kPanel<A>;
  scratch.assign(size_t(kTile * (kDepth + width)), A(0));
  A *const buffer = scratch.data(), *const sums = buffer + kTile * kDepth;
  for (int64_t c = 0; c < channels; c += kDepth) {
    const int64_t depth = min_of(kDepth, channels - c);
    for (int64_t i = 0; i < pixels;) {
      const int64_t y = (first + i) / s.depthwise.small_w, x = (first + i) % s.depthwise.small_w;
      const int64_t count = min_of(s.depthwise.small_w - x, pixels - i);
      const DepthwiseRow<T, A> row{image + c, prepared.by_tap.data() + c, prepared.bias ? prepared.bias + c : nullptr,
                                   buffer + i * kDepth, kDepth};
      depthwise_row(axes, y, x, x + count, depth, row);
      i += count;
    }
    if (s.depthwise_relu)
      for (int64_t i = 0; i < pixels * kDepth; ++i) buffer[i] = relu_of(buffer[i]);
    const auto panel = [&](int64_t j) { return prepared.panels.data() + j * channels + c * kPanel<A>; };
    for (int64_t j = 0; j < width; j += kPanel<A>)
      add_product<A>(pixels, kPanel<A>, depth, {buffer, kDepth, 1}, panel(j), kPanel<A>, sums + j, width,
                     j + kPanel<A> < width ? panel(j + kPanel<A>) : nullptr);
  }
  for (int64_t i = 0; i < pixels; ++i) {
    T* to = out + (first + i) * s.out_channels;
    for (int64_t o = 0; o < s.out_channels; o += kLanes<A>) {
      const int64_t n = min_of(kLanes<A>, s.out_channels - o);
      const auto at = [&](const T* p) { return n == kLanes<A> ? load_vector(p + o) : load_vector(p + o, n); };
      Vec<A> v = load_vector(sums + i * width + o);
      if (f.pointwise_bias) v = v + at(f.pointwise_bias);
      if (f.scale) v = v * at(f.scale) + at(f.shift);
      if (s.relu) v = relu_of(v);
      if (n == kLanes<A>) store_vector(to + o, v);
      else store_vector(to + o, v, n);
    }
  }
}
template <class T>
void plane_tile(const SeparableShape& s, int64_t first, int64_t pixels, const T* image, const SeparableFactors<T>& f,
                const Prepared<T>& prepared, T* out, std::vector<Accum<T>>& scratch) {
  using A = Accum<T>;
  const int64_t channels = s.channels(), plane = s.depthwise.large_h * s.depthwise.large_w;
  scratch.assign(size_t(kTile * (kDepth + s.out_channels)), A(0));
  A *const buffer = scratch.data(), *const sums = buffer + kTile * kDepth;
  const PlaneTaps<A> taps(s.depthwise, first, pixels);
  for (int64_t c = 0; c < channels; c += kDepth) {
    const int64_t depth = min_of(kDepth, channels - c);
    const auto planes = [&](int64_t k, auto count) {
      depthwise_planes<count()>(
          s, taps, first, pixels, image + (c + k) * plane, prepared.depthwise.at + (c + k) * s.depthwise.taps(),
          prepared.bias ? prepared.bias + c + k : nullptr, buffer + k * kPanel<A>, kDepth * kPanel<A>);
    };
    int64_t k = 0;
    for (; k + 4 <= depth; k += 4) planes(k, std::integral_constant<int, 4>());
    for (; k < depth; ++k) planes(k, std::integral_constant<int, 1>());
    for (int64_t j = 0; j < pixels; j += kPanel<A>)
      add_product<A>(s.out_channels, kPanel<A>, depth, {prepared.pointwise.at + c, channels, 1}, buffer + j * kDepth,
                     kPanel<A>, sums + j, kTile);
  }
  for (int64_t o = 0; o < s.out_channels; ++o)
    for (int64_t j = 0; j < pixels; j += kLanes<A>) {
      Vec<A> v = load_vector(sums + o * kTile + j);
      if (f.pointwise_bias) v = v + Vec<A>(to_accum(f.pointwise_bias[o]));
      if (f.scale) v = v * Vec<A>(to_accum(f.scale[o])) + Vec<A>(to_accum(f.shift[o]));
      if (s.relu) v = relu_of(v);
      T* to = out + o * s.pixels() + first + j;
      if (j + kLanes<A> <= pixels) store_vector(to, v);
      else store_vector(to, v, pixels - j);
    }
}

}  // namespace

template <class T, class Isa>
void separable_conv2d(const SeparableShape& s, const T* input, const SeparableFactors<T>& f, T* out,
                      const Cpu<Isa>& exec) {
  const Prepared<T> prepared(s, f);
  const DepthwiseAxes axes = gathered_axes(s.depthwise);
  const int64_t shares = ceil_div(s.pixels(), kShare);
  exec(s.depthwise.batch * shares, 1 + 65536 / (kShare * s.channels() * s.out_channels + 1),
       [&](int64_t begin, int64_t end) {
         std::vector<Accum<T>> scratch;
         for (int64_t k = begin, next = 0; k < end; k = next) {
           const int64_t n = k / shares, first = k % shares * kShare;
           next = min_of(k + kTile / kShare, min_of(end, (n + 1) * shares));
           const int64_t pixels = min_of((next - k) * kShare, s.pixels() - first);
           const T* image = input + n * large_layout(s.depthwise).image;
           T* to = out + n * s.out_channels * s.pixels();
           if (s.depthwise.channels_last) pixel_tile(s, axes, first, pixels, image, f, prepared, to, scratch);
           else plane_tile(s, first, pixels, image, f, prepared, to, scratch);
         }
       });
}

#define INSTANTIATE(T) \
  template void separable_conv2d(const SeparableShape&, const T*, const SeparableFactors<T>&, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
