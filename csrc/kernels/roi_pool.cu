// Forward: a thread takes one bin of one channel; neighbouring threads take neighbouring channels (channels_last) or
// bins, so that pixels are read and results written side by side. Bound by the bytes of output and argmax.
// Backward, deterministic: a block owns 8 x 8 pixels for 64 channels with the sums in shared memory, a column per
// thread; it walks the regions that touch its tile in order and takes the bins whose maximum lies in the tile. Every
// pixel is written once, no atomics.
#include "cuda.cuh"
#include "roi_pool.h"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    pool_kernel(RoiPoolShape s, const T* __restrict__ input, const Accum<T>* __restrict__ rois, T* __restrict__ out,
                int32_t* __restrict__ argmax, DeviceErrors* errors) {
  using A = Accum<T>;
  FV_FOR(i, s.rois * s.channels * s.bins()) {
    const int64_t c = s.channels_last ? i % s.channels : i / s.bins() % s.channels;
    const int64_t bin = s.channels_last ? i / s.channels % s.bins() : i % s.bins();
    const int64_t r = i / s.channels / s.bins();
    const PoolRoi<A> roi = load_pool_roi(rois, s, r);
    A best(0);
    int64_t at = -1;
    if (!roi.is_zero()) {
      const T* plane = input + s.image_offset(roi.image) + c * s.channel_stride();
      const auto rows = roi.y.pixels_of(bin / s.out_w), columns = roi.x.pixels_of(bin % s.out_w);
      for (int64_t y = rows.begin; y < rows.end; ++y)
        for (int64_t x = columns.begin; x < columns.end; ++x) {
          const int64_t pixel = y * s.width + x;
          const A v = to_accum(plane[pixel * s.pixel_stride()]);
          if (at < 0 || replaces(v, best)) best = v, at = pixel;
        }
    } else if (roi.index_error && c == 0 && bin == 0) {
      report_bad_row(errors, OpId::roi_pool, r);
    }
    out[i] = from_accum<T>(best);
    if (argmax) argmax[i] = int32_t(at);
  }
}

constexpr int kTile = 8, kChannels = 64;

template <class T>
__global__ void __launch_bounds__(kChannels)
    backward_kernel(RoiPoolShape s, int64_t tiles_y, int64_t tiles_x, const T* __restrict__ grad,
                    const Accum<T>* __restrict__ rois, const int32_t* __restrict__ argmax, T* __restrict__ grad_input) {
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
      const PoolRoi<A> roi = load_pool_roi(rois, s, candidate);
      const auto reaches = [](const PoolAxis<A>& axis, int64_t at, int64_t bins) {
        return axis.start + axis.bin * A(bins) >= A(at - 1) && axis.start <= A(at + kTile);
      };
      touch = !roi.is_zero() && roi.image == image && reaches(roi.y, y0, s.out_h) && reaches(roi.x, x0, s.out_w);
    }
    const int count = gather_in_order<kChannels>(touch, candidate, touching);
    for (int k = 0; k < count && c < s.channels; ++k) {
      const int64_t r = touching[k];
      const PoolRoi<A> roi = load_pool_roi(rois, s, r);
      const int64_t ph0 = roi.y.bins_of(y0, s.out_h).begin, ph1 = roi.y.bins_of(y0 + kTile - 1, s.out_h).end;
      const int64_t pw0 = roi.x.bins_of(x0, s.out_w).begin, pw1 = roi.x.bins_of(x0 + kTile - 1, s.out_w).end;
      for (int64_t ph = ph0; ph < ph1; ++ph)
        for (int64_t pw = pw0; pw < pw1; ++pw) {
          const int64_t i = s.bin_offset(r, ph * s.out_w + pw) + c * s.out_channel_stride();
          const int64_t pixel = argmax[i];
          const int64_t y = pixel / s.width - y0, x = pixel % s.width - x0;
          if (pixel >= 0 && y >= 0 && y < kTile && x >= 0 && x < kTile)
            sums[y * kTile + x][threadIdx.x] += to_accum(grad[i]);
        }
    }
  }
  if (c >= s.channels) return;
  T* plane = grad_input + s.image_offset(image) + c * s.channel_stride();
  for (int k = 0; k < kTile * kTile; ++k) {
    const int64_t y = y0 + k / kTile, x = x0 + k % kTile;
    if (y < s.height && x < s.width) plane[(y * s.width + x) * s.pixel_stride()] = from_accum<T>(sums[k][threadIdx.x]);
  }
}

}  // namespace

template <class T>
void roi_pool(const RoiPoolShape& s, const T* input, const Accum<T>* rois, T* out, int32_t* argmax,
              const CudaExec& exec) {
  const int64_t items = s.rois * s.channels * s.bins();
  if (items > 0) launch(exec, pool_kernel<T>, grid_for(items), kThreads, 0, s, input, rois, out, argmax, exec.errors);
}

template <class T>
void roi_pool_backward(const RoiPoolShape& s, const T* grad, const Accum<T>* rois, const int32_t* argmax, T* grad_input,
                       const CudaExec& exec) {
  const int64_t tiles_y = ceil_div(s.height, int64_t(kTile)), tiles_x = ceil_div(s.width, int64_t(kTile));
  const int64_t blocks = s.batch * tiles_y * tiles_x * ceil_div(s.channels, int64_t(kChannels));
  if (blocks > 0)
    launch(exec, backward_kernel<T>, unsigned(blocks), kChannels, 0, s, tiles_y, tiles_x, grad, rois, argmax,
           grad_input);
}

#define INSTANTIATE(T)                                                                                   \
  template void roi_pool(const RoiPoolShape&, const T*, const Accum<T>*, T*, int32_t*, const CudaExec&); \
  template void roi_pool_backward(const RoiPoolShape&, const T*, const Accum<T>*, const int32_t*, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
