// Forward: a thread takes one bin of one channel; neighbouring threads take neighbouring channels (channels_last) or
// bins. Bound by the bytes of the pixels through the caches and of output and argmax.
// Backward, deterministic: a block owns 8 x 8 pixels for 64 channels with the sums in shared memory, a column per
// thread; it walks the regions that touch its tile in order and adds the pixels of their maxima that lie in the tile.
// Every pixel is written once, no atomics.
#include "cuda.cuh"
#include "roi_align_max.h"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ RoiAlignShape s, const T* __restrict__ input,
                   const Accum<T>* __restrict__ rois, T* __restrict__ out, int64_t* __restrict__ argmax,
                   DeviceErrors* errors) {
  using A = Accum<T>;
  FV_FOR(i, s.rois * s.channels * s.bins()) {
    const int64_t c = s.channels_last ? i % s.channels : i / s.bins() % s.channels;
    const int64_t bin = s.channels_last ? i / s.channels % s.bins() : i % s.bins();
    const int64_t r = i / s.channels / s.bins(), ph = bin / s.out_w, pw = bin % s.out_w;
    const Roi<A> roi = load_roi(rois, nullptr, s, r);
    A best(0);
    int64_t at = -1;
    if (!roi.is_zero()) {
      const T* plane = input + s.map_offset(0, roi.image) + c * s.map_channel_stride(0);
      const BinSamples<A> samples(roi, ph, pw);
      bool first = !samples.any_outside;
      for (int64_t iy = samples.rows.begin; iy < samples.rows.end; ++iy) {
        const Tap<A> y = bilinear_tap(roi.y.position(ph, iy), roi.y.size);
        for (int64_t ix = samples.columns.begin; ix < samples.columns.end; ++ix) {
          const Tap<A> x = bilinear_tap(roi.x.position(pw, ix), roi.x.size);
          const A v = sample_value(y, x, plane, s.pixel_offset(0, 1, 0), s.pixel_offset(0, 0, 1));
          if (first || replaces(v, best)) best = v, at = iy * roi.x.samples + ix;
          first = false;
        }
      }
    } else if (roi.index_error && c == 0 && bin == 0) {
      report_bad_row(errors, s.op, r);
    }
    out[i] = from_accum<T>(best);
    if (argmax) argmax[i] = at;
  }
}

constexpr int kTile = 8, kChannels = 64;

template <class T>
__global__ void __launch_bounds__(kChannels)
    backward_kernel(const __grid_constant__ RoiAlignShape s, int64_t tiles_y, int64_t tiles_x,
                    const T* __restrict__ grad, const Accum<T>* __restrict__ rois, const int64_t* __restrict__ argmax,
                    T* __restrict__ grad_input) {
  using A = Accum<T>;
  FV_SHARED(sums, A[kTile * kTile][kChannels]);
  FV_SHARED(touching, int64_t[kChannels]);
  const int64_t chunks = ceil_div(s.channels, int64_t(kChannels));
  const int64_t tile = blockIdx.x / chunks, c = blockIdx.x % chunks * kChannels + threadIdx.x;
  const int64_t image = tile / (tiles_y * tiles_x);
  const int64_t y0 = tile / tiles_x % tiles_y * kTile, x0 = tile % tiles_x * kTile;

  for (int k = 0; k < kTile * kTile; ++k) sums[k][threadIdx.x] = A(0);  // each thread uses its own column only
  for (int64_t first = 0; first < s.rois; first += kChannels) {
    bool touch = false;
    const int64_t candidate = first + threadIdx.x;
    if (candidate < s.rois) {
      const Roi<A> roi = load_roi(rois, nullptr, s, candidate);
      touch = !roi.is_zero() && roi.image == image && touches(roi.y, y0, kTile) && touches(roi.x, x0, kTile);
    }
    const int count = gather_in_order<kChannels>(touch, candidate, touching);
    for (int k = 0; k < count && c < s.channels; ++k) {
      const Roi<A> roi = load_roi(rois, nullptr, s, touching[k]);
      for (int64_t ph = 0; ph < s.out_h; ++ph) {
        if (!roi.y.reaches(ph, y0, kTile)) continue;
        for (int64_t pw = 0; pw < s.out_w; ++pw) {
          const int64_t i = s.bin_offset(touching[k], ph, pw) + c * s.out_channel_stride();
          if (argmax[i] < 0) continue;
          const SamplePixels<A> pixels(roi, ph, pw, argmax[i]);
          const A g = to_accum(grad[i]);
          const auto add = [&](int64_t at_y, int64_t at_x, A weight) {
            const int64_t y = at_y - y0, x = at_x - x0;
            if (weight != A(0) && y >= 0 && y < kTile && x >= 0 && x < kTile)
              sums[y * kTile + x][threadIdx.x] += weight * g;
          };
          add(pixels.y.low, pixels.x.low, pixels.y.low_weight * pixels.x.low_weight);
          add(pixels.y.low, pixels.x.high, pixels.y.low_weight * pixels.x.high_weight);
          add(pixels.y.high, pixels.x.low, pixels.y.high_weight * pixels.x.low_weight);
          add(pixels.y.high, pixels.x.high, pixels.y.high_weight * pixels.x.high_weight);
        }
      }
    }
  }
  if (c >= s.channels) return;
  T* map = grad_input + s.map_offset(0, image) + c * s.map_channel_stride(0);
  for (int k = 0; k < kTile * kTile; ++k) {
    const int64_t y = y0 + k / kTile, x = x0 + k % kTile;
    if (y < s.level[0].height && x < s.level[0].width)
      map[s.pixel_offset(0, y, x)] = from_accum<T>(sums[k][threadIdx.x]);
  }
}

}  // namespace

template <class T>
void roi_align_max(const RoiAlignShape& s, const T* input, const Accum<T>* rois, T* out, int64_t* argmax,
                   const CudaExec& exec) {
  const int64_t items = s.rois * s.channels * s.bins();
  if (items > 0)
    launch(exec, forward_kernel<T>, grid_for(items), kThreads, 0, s, input, rois, out, argmax, exec.errors);
}

template <class T>
void roi_align_max_backward(const RoiAlignShape& s, const T* grad, const Accum<T>* rois, const int64_t* argmax,
                            T* grad_input, const CudaExec& exec) {
  const int64_t tiles_y = ceil_div(s.level[0].height, int64_t(kTile));
  const int64_t tiles_x = ceil_div(s.level[0].width, int64_t(kTile));
  const int64_t blocks = s.batch * tiles_y * tiles_x * ceil_div(s.channels, int64_t(kChannels));
  if (blocks > 0)
    launch(exec, backward_kernel<T>, unsigned(blocks), kChannels, 0, s, tiles_y, tiles_x, grad, rois, argmax,
           grad_input);
}

#define INSTANTIATE(T)                                                                                         \
  template void roi_align_max(const RoiAlignShape&, const T*, const Accum<T>*, T*, int64_t*, const CudaExec&); \
  template void roi_align_max_backward(const RoiAlignShape&, const T*, const Accum<T>*, const int64_t*, T*,    \
                                       const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
