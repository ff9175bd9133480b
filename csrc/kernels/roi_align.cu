// Forward: a thread makes one bin for a few channels (16 bytes of them in channels_last), so the coordinates of a
// sample are worked out once for all of these; all levels and images in one launch; the output is written once. Bound
// by the bytes of pixels through the caches: at most 4 per sample, fewer from memory as neighbours share them.
// Backward, deterministic: a block owns 8 x 8 pixels of one map for 64 channels, a channel per thread with the pixels
// in registers. It walks the regions in order, skips those that do not touch its tile, and adds per row of bins the
// separable transpose: along x into 8 sums, those into the 64 pixels. Every pixel is written once, zeros included: no
// atomics, no zero fill, no float32 copy of a 16-bit gradient. Bytes: the gradient of the output per tile it touches
// (1.6 times for the proposals of a detector), the gradient of the maps once.
#include "cuda.cuh"
#include "roi_align.h"

namespace fastvision {
namespace {

template <class T>
constexpr int kVector = 16 / sizeof(T) < 8 ? 16 / int(sizeof(T)) : 8;

// kCount channels from p, `stride` apart; one load where they are neighbours.
template <int kCount, bool kPacked, class T>
__device__ void add_channels(const T* p, int64_t stride, int count, Accum<T> weight, Accum<T> (&sum)[kCount]) {
  if constexpr (kPacked) {
    const auto pack = load_pack<kCount>(p);
    FV_UNROLL
    for (int k = 0; k < kCount; ++k) sum[k] = multiply_add(weight, to_accum(pack.at[k]), sum[k]);
  } else {
    FV_UNROLL
    for (int k = 0; k < kCount; ++k)
      if (k < count) sum[k] = multiply_add(weight, to_accum(p[k * stride]), sum[k]);
  }
}

// kPacked: channels_last with a multiple of kCount channels.
template <class T, int kCount, bool kPacked>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ RoiAlignShape s, const __grid_constant__ LevelPointers<const T> maps,
                   const Accum<T>* __restrict__ rois, const int64_t* __restrict__ level_of, T* __restrict__ out,
                   DeviceErrors* errors) {
  using A = Accum<T>;
  const int64_t groups = ceil_div(s.channels, int64_t(kCount));
  FV_FOR(i, s.rois * groups * s.bins()) {
    // Neighbouring threads take neighbouring channels or, in NCHW, neighbouring bins.
    const int64_t group = kPacked ? i % groups : i / s.bins() % groups;
    const int64_t bin = kPacked ? i / groups % s.bins() : i % s.bins();
    const int64_t r = i / groups / s.bins(), c = group * kCount;
    const Roi<A> roi = load_roi(rois, level_of, s, r);
    A sum[kCount] = {};
    if (!roi.is_zero()) {
      const int64_t stride = s.map_channel_stride(roi.level);
      const T* map = maps.at[roi.level] + s.map_offset(roi.level, roi.image) + c * stride;
      const int count = int(min_of(s.channels - c, int64_t(kCount)));
      const int64_t ph = bin / s.out_w, pw = bin % s.out_w;
      const auto rows = roi.y.samples_inside(ph), columns = roi.x.samples_inside(pw);
      for (int64_t iy = rows.begin; iy < rows.end; ++iy) {
        const Tap<A> y = bilinear_tap(roi.y.position(ph, iy), roi.y.size);
        for (int64_t ix = columns.begin; ix < columns.end; ++ix) {
          const Tap<A> x = bilinear_tap(roi.x.position(pw, ix), roi.x.size);
          const auto add = [&](int64_t at_y, int64_t at_x, A weight) {
            if (weight != A(0))
              add_channels<kCount, kPacked>(map + s.pixel_offset(roi.level, at_y, at_x), stride, count, weight, sum);
          };
          add(y.low, x.low, y.low_weight * x.low_weight);
          add(y.low, x.high, y.low_weight * x.high_weight);
          add(y.high, x.low, y.high_weight * x.low_weight);
          add(y.high, x.high, y.high_weight * x.high_weight);
        }
      }
      const A share = roi.inverse_samples();
      for (A& v : sum) v *= share;
    } else if (roi.index_error && group == 0 && bin == 0) {
      report_bad_row(errors, s.op, r);
    }
    T* to = out + s.bin_offset(r, bin / s.out_w, bin % s.out_w) + c * s.out_channel_stride();
    if constexpr (kPacked) {
      Pack<T, kCount> pack;
      FV_UNROLL
      for (int k = 0; k < kCount; ++k) pack.at[k] = from_accum<T>(sum[k]);
      store_pack(to, pack);
    } else {
      FV_UNROLL
      for (int k = 0; k < kCount; ++k)
        if (c + k < s.channels) to[k * s.out_channel_stride()] = from_accum<T>(sum[k]);
    }
  }
}

constexpr int kTile = 8, kChannels = 64, kBins = 8;  // pixels per side, channels and threads, bins at a time

template <class T>
__global__ void __launch_bounds__(kChannels)
    backward_kernel(const __grid_constant__ RoiAlignShape s, const __grid_constant__ RoiAlignTiles tiles,
                    const T* __restrict__ grad, const Accum<T>* __restrict__ rois, const int64_t* __restrict__ level_of,
                    const __grid_constant__ LevelPointers<T> grad_maps) {
  using A = Accum<T>;
  FV_SHARED(weight_y, A[kBins][kTile]);
  FV_SHARED(weight_x, A[kBins][kTile]);
  FV_SHARED(touching, int64_t[kChannels]);
  const int64_t chunks = ceil_div(s.channels, int64_t(kChannels));
  const int64_t c = blockIdx.x % chunks * kChannels + threadIdx.x;
  const auto tile = tiles.at(s, blockIdx.x / chunks);
  const int level = tile.level;
  const int64_t y0 = tile.y, x0 = tile.x;

  A sum[kTile][kTile] = {};
  for (int64_t first = 0; first < s.rois; first += kChannels) {
    // The regions among these that touch the tile, in order.
    bool touch = false;
    const int64_t candidate = first + threadIdx.x;
    if (candidate < s.rois) {
      const Roi<A> roi = load_roi(rois, level_of, s, candidate);
      touch = !roi.is_zero() && roi.image == tile.image && roi.level == level && touches(roi.y, y0, kTile) &&
              touches(roi.x, x0, kTile);
    }
    const int count = gather_in_order<kChannels>(touch, candidate, touching);
    for (int k = 0; k < count; ++k) {
      const int64_t r = touching[k];
      const Roi<A> roi = load_roi(rois, level_of, s, r);
      const A share = roi.inverse_samples();
      for (int64_t ph0 = 0; ph0 < s.out_h; ph0 += kBins)
        for (int64_t pw0 = 0; pw0 < s.out_w; pw0 += kBins) {
          __syncthreads();
          for (int i = threadIdx.x; i < 2 * kBins * kTile; i += kChannels) {
            const int bin = i / kTile % kBins, at = i % kTile;
            if (i < kBins * kTile) weight_y[bin][at] = roi.y.weight_of(ph0 + bin, y0 + at) * share;
            else weight_x[bin][at] = roi.x.weight_of(pw0 + bin, x0 + at);
          }
          __syncthreads();
          if (c >= s.channels) continue;
          for (int bh = 0; bh < kBins && ph0 + bh < s.out_h; ++bh) {
            bool used = false;
            FV_UNROLL
            for (int y = 0; y < kTile; ++y) used |= weight_y[bh][y] != A(0);
            if (!used) continue;
            A row[kTile] = {};
            for (int bw = 0; bw < kBins && pw0 + bw < s.out_w; ++bw) {
              const A g = to_accum(grad[s.bin_offset(r, ph0 + bh, pw0 + bw) + c * s.out_channel_stride()]);
              FV_UNROLL
              for (int x = 0; x < kTile; ++x)
                if (weight_x[bw][x] != A(0)) row[x] = multiply_add(weight_x[bw][x], g, row[x]);
            }
            FV_UNROLL
            for (int y = 0; y < kTile; ++y) {
              const A weight = weight_y[bh][y];
              if (weight != A(0)) {
                FV_UNROLL
                for (int x = 0; x < kTile; ++x) sum[y][x] = multiply_add(weight, row[x], sum[y][x]);
              }
            }
          }
        }
    }
  }
  if (c >= s.channels) return;
  T* map = grad_maps.at[level] + s.map_offset(level, tile.image) + c * s.map_channel_stride(level);
  FV_UNROLL
  for (int y = 0; y < kTile; ++y) {
    FV_UNROLL
    for (int x = 0; x < kTile; ++x)
      if (y0 + y < s.level[level].height && x0 + x < s.level[level].width)
        map[s.pixel_offset(level, y0 + y, x0 + x)] = from_accum<T>(sum[y][x]);
  }
}

}  // namespace

template <class T>
void roi_align(const RoiAlignShape& s, const LevelPointers<const T>& maps, const Accum<T>* rois,
               const int64_t* level_of, T* out, const CudaExec& exec) {
  constexpr int kCount = kVector<T>;
  const int64_t items = s.rois * ceil_div(s.channels, int64_t(kCount)) * s.bins();
  if (items == 0) return;
  const bool packed = s.channels_last && s.channels % kCount == 0;
  launch(exec, packed ? forward_kernel<T, kCount, true> : forward_kernel<T, kCount, false>, grid_for(items), kThreads,
         0, s, maps, rois, level_of, out, exec.errors);
}

template <class T>
void roi_align_backward(const RoiAlignShape& s, const T* grad, const Accum<T>* rois, const int64_t* level_of,
                        const LevelPointers<T>& grad_maps, const CudaExec& exec) {
  const RoiAlignTiles tiles(s, kTile);
  const int64_t blocks = tiles.before[s.levels] * ceil_div(s.channels, int64_t(kChannels));
  if (blocks == 0) return;
  launch(exec, backward_kernel<T>, unsigned(blocks), kChannels, 0, s, tiles, grad, rois, level_of, grad_maps);
}

#define INSTANTIATE(T)                                                                                              \
  template void roi_align(const RoiAlignShape&, const LevelPointers<const T>&, const Accum<T>*, const int64_t*, T*, \
                          const CudaExec&);                                                                         \
  template void roi_align_backward(const RoiAlignShape&, const T*, const Accum<T>*, const int64_t*,                 \
                                   const LevelPointers<T>&, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
