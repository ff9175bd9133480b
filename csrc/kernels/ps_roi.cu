// Forward: a thread takes one element of the output, that is one bin of one input channel; bound by the bytes of the
// pixels, since neighbouring elements read different channels.
// Backward, deterministic: a block owns 16 x 16 pixels of one input channel, which only one bin of each region reads, a
// thread per pixel. It goes over the regions in order, 256 at a time, and skips those whose bin is elsewhere; the bins
// are small, so few tiles meet any. Every pixel is written once, no atomics.
#include "cuda.cuh"
#include "ps_roi.h"

namespace fastvision {
namespace {

template <class T, class Bins>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ PsRoiShape s, const T* __restrict__ input, const Accum<T>* __restrict__ rois,
                   T* __restrict__ out, DeviceErrors* errors) {
  using A = Accum<T>;
  FV_FOR(i, s.map.rois * s.map.channels) {
    const int64_t r = i / s.map.channels, c = s.channel_at(i % s.map.channels), bin = c % s.map.bins();
    const auto region = load_region(rois, s, r, Bins{});
    A sum(0);
    if (!region.is_zero()) {
      const int64_t ph = bin / s.map.out_w, pw = bin % s.map.out_w;
      const T* plane = input + s.map.map_offset(0, region.image) + c * s.map.map_channel_stride(0);
      const auto rows = region.y.steps(ph), columns = region.x.steps(pw);
      for (int64_t iy = rows.begin; iy < rows.end; ++iy) {
        const Tap<A> y = region.y.tap(ph, iy);
        for (int64_t ix = columns.begin; ix < columns.end; ++ix) {
          const Tap<A> x = region.x.tap(pw, ix);
          const auto add = [&](int64_t at_y, int64_t at_x, A weight) {
            if (weight != A(0)) sum += weight * to_accum(plane[s.map.pixel_offset(0, at_y, at_x)]);
          };
          add(y.low, x.low, y.low_weight * x.low_weight);
          add(y.low, x.high, y.low_weight * x.high_weight);
          add(y.high, x.low, y.high_weight * x.low_weight);
          add(y.high, x.high, y.high_weight * x.high_weight);
        }
      }
      sum /= max_of(region.y.length(ph) * region.x.length(pw), A(1));
    } else if (region.index_error && i % s.map.channels == 0) {
      report_bad_row(errors, s.map.op, r);
    }
    out[i] = from_accum<T>(sum);
  }
}

constexpr int kTile = 16;

template <class T, class Bins>
__global__ void __launch_bounds__(kTile* kTile, 2)
    backward_kernel(const __grid_constant__ PsRoiShape s, int64_t tiles_y, int64_t tiles_x, const T* __restrict__ grad,
                    const Accum<T>* __restrict__ rois, T* __restrict__ grad_input) {
  using A = Accum<T>;
  constexpr int kCandidates = kTile * kTile;
  FV_SHARED(touching, int64_t[kCandidates]);
  const auto& map = s.map.level[0];
  const int64_t tiles = tiles_y * tiles_x, plane = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int64_t image = plane / s.map.channels, c = plane % s.map.channels;
  const int64_t ph = c % s.map.bins() / s.map.out_w, pw = c % s.map.out_w;
  const int64_t y0 = tile / tiles_x * kTile, x0 = tile % tiles_x * kTile;
  const int64_t y = y0 + threadIdx.x / kTile, x = x0 + threadIdx.x % kTile;

  A sum(0);
  for (int64_t first = 0; first < s.map.rois; first += kCandidates) {
    bool touch = false;
    const int64_t candidate = first + threadIdx.x;
    if (candidate < s.map.rois) {
      const auto region = load_region(rois, s, candidate, Bins{});
      touch = !region.is_zero() && region.image == image && region.y.reaches(ph, y0, kTile) &&
              region.x.reaches(pw, x0, kTile);
    }
    const int count = gather_in_order<kCandidates>(touch, candidate, touching);
    for (int k = 0; k < count; ++k) {
      if (y >= map.height || x >= map.width) continue;
      const auto region = load_region(rois, s, touching[k], Bins{});
      const A weight = region.y.weight_of(ph, y) * region.x.weight_of(pw, x);
      if (weight == A(0)) continue;
      const A share =
          to_accum(grad[s.out_offset(touching[k], c)]) / max_of(region.y.length(ph) * region.x.length(pw), A(1));
      sum += weight * share;
    }
  }
  if (y < map.height && x < map.width)
    grad_input[s.map.map_offset(0, image) + c * s.map.map_channel_stride(0) + s.map.pixel_offset(0, y, x)] =
        from_accum<T>(sum);
}

}  // namespace

template <class T, class Bins>
void ps_roi(const PsRoiShape& s, Bins, const T* input, const Accum<T>* rois, T* out, const CudaExec& exec) {
  const int64_t items = s.map.rois * s.map.channels;
  if (items > 0) launch(exec, forward_kernel<T, Bins>, grid_for(items), kThreads, 0, s, input, rois, out, exec.errors);
}

template <class T, class Bins>
void ps_roi_backward(const PsRoiShape& s, Bins, const T* grad, const Accum<T>* rois, T* grad_input,
                     const CudaExec& exec) {
  const int64_t tiles_y = ceil_div(s.map.level[0].height, int64_t(kTile));
  const int64_t tiles_x = ceil_div(s.map.level[0].width, int64_t(kTile));
  const int64_t blocks = s.map.batch * s.map.channels * tiles_y * tiles_x;
  if (blocks > 0)
    launch(exec, backward_kernel<T, Bins>, unsigned(blocks), kTile * kTile, 0, s, tiles_y, tiles_x, grad, rois,
           grad_input);
}

#define INSTANTIATE_BINS(T, Bins)                                                                          \
  template void ps_roi(const PsRoiShape&, Bins<Accum<T>>, const T*, const Accum<T>*, T*, const CudaExec&); \
  template void ps_roi_backward(const PsRoiShape&, Bins<Accum<T>>, const T*, const Accum<T>*, T*, const CudaExec&);
#define INSTANTIATE(T) INSTANTIATE_BINS(T, SampledBins) INSTANTIATE_BINS(T, PixelBins)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_BINS

}  // namespace fastvision
