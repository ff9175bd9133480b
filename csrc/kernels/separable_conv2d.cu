// A block computes 64 pixels by 256 channels of the result (product_tile.cuh): for 32 channels at a time (16 of double)
// its threads compute the depthwise result to shared memory, 4 channels of a pixel each, while cp.async brings the
// pointwise weights. 16-bit types are multiplied on tensor cores, for which the depthwise result is rounded, as is
// float32 where tf32 is allowed. With more than 256 channels of the result the depthwise stage is repeated. The
// depthwise map is never in memory: input and result are moved once. Bound by the instructions of the depthwise stage.
// No atomics: deterministic.
#include "cuda.cuh"
#include "product_tile.cuh"
#include "separable_conv2d.h"

namespace fastvision {
namespace {

constexpr int kPixels = kProductTile, kPanels = 4, kOut = kPanels * kProductTile;
constexpr int kMostTaps = 25;  // of which the weights are kept in shared memory
template <class T>
constexpr int kDepth = kProductDepth<T>;
template <class T>
constexpr int kPack = 16 / sizeof(T);
constexpr int kGroup = 4;  // channels that a thread computes at once; with 8 the sums of the product would be spilled
template <class T>
constexpr int kVector = kPack<T> < kGroup ? kPack<T> : kGroup;

template <class T>
struct Stage {
  ProductFactor<T, kPixels, false> x;
  ProductFactor<T, kProductTile, false> y[kPanels];
  Accum<T> weights[kMostTaps][kDepth<T>];
};
struct Pixel {
  int64_t image, y, x;  // image: -1 beyond the last pixel
};
template <class T>
struct SeparableShared {
  Pixel pixels[kPixels];  // would fill the registers
  Stage<T> stages[2];
};

// kPanels tiles side by side, with the same rows.
template <class Tile>
struct WideTile {
  Tile panels[kPanels];

  template <class T>
  __device__ void add(const Stage<T>& stage) {
    struct View {
      const ProductFactor<T, kPixels, false>& x;
      const ProductFactor<T, kProductTile, false>& y;
    };
    FV_UNROLL
    for (int k = 0; k < kPanels; ++k) panels[k].add(View{stage.x, stage.y[k]});
  }
  template <class F>
  __device__ void each(F&& f) const {
    FV_UNROLL
    for (int k = 0; k < kPanels; ++k) panels[k].each([&](int i, int j, auto sum) { f(i, k * kProductTile + j, sum); });
  }
};

// Channels [c, c + count) of the depthwise result at a pixel. weights: of the first of them in Stage::weights, or null
// if there are more taps than have room.
template <class T>
__device__ void depthwise_at(const SeparableShape& s, const SeparableFactors<T>& f, const T* __restrict__ input,
                             Pixel at, int64_t c, int count, const Accum<T>* weights, Accum<T> (&sum)[kGroup]) {
  const ConvolutionShape& d = s.depthwise;
  const MapLayout from = large_layout(d);
  const bool packs = d.channels_last && d.groups % kGroup == 0;
  const T* const first = input + at.image * from.image + c * from.channel;
  FV_UNROLL
  for (int j = 0; j < kGroup; ++j)
    sum[j] = f.depthwise_bias && j < count ? to_accum(f.depthwise_bias[c + j]) : Accum<T>(0);
  for (int64_t ky = 0, y = at.y - d.padding_y; ky < d.kernel_y; ++ky, y += d.dilation_y) {
    if (y < 0 || y >= d.large_h) continue;
    for (int64_t kx = 0, x = at.x - d.padding_x; kx < d.kernel_x; ++kx, x += d.dilation_x) {
      if (x < 0 || x >= d.large_w) continue;
      const T* const pixel = first + y * from.row + x * from.column;
      const int64_t tap = ky * d.kernel_x + kx;
      const auto weight = [&](int j) {
        return weights ? weights[tap * kDepth<T> + j] : to_accum(f.depthwise_weight[(c + j) * d.taps() + tap]);
      };
      if (packs) {
        FV_UNROLL
        for (int k = 0; k < kGroup; k += kVector<T>) {
          const auto vector = load_pack<kVector<T>>(pixel + k);
          FV_UNROLL
          for (int j = 0; j < kVector<T>; ++j)
            sum[k + j] = multiply_add(to_accum(vector.at[j]), weight(k + j), sum[k + j]);
        }
      } else {
        FV_UNROLL
        for (int j = 0; j < kGroup; ++j)
          if (j < count) sum[j] = multiply_add(to_accum(pixel[j * from.channel]), weight(j), sum[j]);
      }
    }
  }
  FV_UNROLL
  for (int j = 0; j < kGroup; ++j)
    if (s.depthwise_relu) sum[j] = relu_of(sum[j]);
}

template <class T, class Tile>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 1 : 2)
    separable_kernel(SeparableShape s, const T* __restrict__ input, SeparableFactors<T> f, T* __restrict__ out) {
  using A = Accum<T>;
  FV_DYNAMIC_SHARED(SeparableShared<T>, shared);
  const ConvolutionShape& d = s.depthwise;
  const MapLayout to = layout_of(d.channels_last, s.out_channels, d.small_h, d.small_w);
  const int64_t pixels = d.batch * s.pixels(), channels = s.channels();
  const int64_t across = ceil_div(pixels, int64_t(kPixels)), down = ceil_div(s.out_channels, int64_t(kOut));
  const bool packs = channels % kPack<T> == 0;
  const auto place_of = [&](int64_t pixel) {
    if (pixel >= pixels) return Pixel{-1, 0, 0};
    const int64_t line = pixel / d.small_w;
    return Pixel{line / d.small_h, line % d.small_h, pixel % d.small_w};
  };
  for (int64_t block = blockIdx.x; block < across * down; block += gridDim.x) {
    const int64_t first_pixel = block / down * kPixels, o0 = block % down * kOut;
    if (threadIdx.x < kPixels) shared->pixels[threadIdx.x] = place_of(first_pixel + threadIdx.x);
    __syncthreads();
    int64_t c0 = 0;
    WideTile<Tile> tile;
    add_products<2>(tile, shared->stages, ceil_div(channels, int64_t(kDepth<T>)), [&](Stage<T>& stage) {
      const int depth = int(min_of(channels - c0, int64_t(kDepth<T>)));
      const int step = packs ? kPack<T> : 1;
      for (int k = threadIdx.x * step; k < kOut * kDepth<T>; k += kThreads * step) {
        const int c = k % kDepth<T>, o = k / kDepth<T>;
        const bool counts = c < depth && o0 + o < s.out_channels;
        const T* const from = counts ? f.pointwise_weight + (o0 + o) * channels + c0 + c : f.pointwise_weight;
        T& at = stage.y[o / kProductTile](o % kProductTile, c);
        if (packs) cp_async<16>(&at, from, counts ? 16 : 0);
        else copy_element(at, from, counts);
      }
      const bool kept = d.taps() <= kMostTaps;
      if (kept) {
        for (int k = threadIdx.x; k < depth * int(d.taps()); k += kThreads)
          stage.weights[k % d.taps()][k / d.taps()] = to_accum(f.depthwise_weight[c0 * d.taps() + k]);
        __syncthreads();
      }
      for_threads<kPixels * kDepth<T> / kGroup>([&](int k) {
        // Neighbouring threads: neighbouring channels or pixels, as they lie in memory.
        constexpr int kGroups = kDepth<T> / kGroup;
        const int row = d.channels_last ? k / kGroups : k % kPixels;
        const int group = (d.channels_last ? k % kGroups : k / kPixels) * kGroup;
        const int count = min_of(depth - group, kGroup);
        A sum[kGroup] = {};
        if (shared->pixels[row].image >= 0 && count > 0)
          depthwise_at(s, f, input, shared->pixels[row], c0 + group, count, kept ? &stage.weights[0][group] : nullptr,
                       sum);
        FV_UNROLL
        for (int j = 0; j < kGroup; ++j) stage.x(row, group + j) = from_accum<T>(sum[j]);
      });
      c0 += kDepth<T>;
    });
    tile.each([&](int i, int j, A sum) {
      const int64_t pixel = first_pixel + i, o = o0 + j;
      if (pixel >= pixels || o >= s.out_channels) return;
      const int64_t image = pixel / s.pixels();
      T* const at = out + image * to.image + o * to.channel + (pixel - image * s.pixels()) * to.column;
      *at = from_accum<T>(separable_result(s, f, o, sum));
    });
  }
}

}  // namespace

template <class T>
void separable_conv2d(const SeparableShape& s, const T* input, const SeparableFactors<T>& f, T* out,
                      const CudaExec& exec) {
  const int64_t blocks =
      ceil_div(s.depthwise.batch * s.pixels(), int64_t(kPixels)) * ceil_div(s.out_channels, int64_t(kOut));
  const auto run = [&](auto* kernel) {
    if (blocks > 0) launch(exec, kernel, grid_for(blocks, 1), kThreads, sizeof(SeparableShared<T>), s, input, f, out);
  };
  if constexpr (sizeof(T) == 2) run(separable_kernel<T, TensorCoreTile<T>>);
  else if constexpr (sizeof(T) == 8) run(separable_kernel<T, PlainTile<T>>);
  else run(s.depthwise.tf32 ? separable_kernel<T, TensorCoreTile<T>> : separable_kernel<T, PlainTile<T>>);
}

#define INSTANTIATE(T) \
  template void separable_conv2d(const SeparableShape&, const T*, const SeparableFactors<T>&, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
