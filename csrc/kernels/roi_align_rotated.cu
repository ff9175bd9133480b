// Forward: a thread makes one bin for a few channels (16 bytes of them in channels_last), so the position of a sample,
// in double, is worked out once for all of these. Bound by the bytes of pixels through the caches.
// Backward, deterministic: a block owns 8 x 8 pixels of one image for 64 channels, whose sums lie in shared memory, a
// column per thread. It walks the regions in order; its threads work out a sample each and keep those that read pixels
// of the tile, in order; then every thread adds all of them for its channel. Every pixel is written once, zeros
// included: no atomics, no zero fill, no float32 copy of a 16-bit gradient.
#include "cuda.cuh"
#include "roi_align_rotated.h"

namespace fastvision {
namespace {

template <class T>
constexpr int kVector = 16 / sizeof(T) < 8 ? 16 / int(sizeof(T)) : 8;

// kPacked: channels_last with a multiple of kCount channels.
template <class T, int kCount, bool kPacked>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ RotatedRoiAlignShape s, const T* __restrict__ maps,
                   const Accum<T>* __restrict__ rois, T* __restrict__ out, DeviceErrors* errors) {
  using A = Accum<T>;
  const int64_t groups = ceil_div(s.channels, int64_t(kCount));
  FV_FOR(i, s.rois * groups * s.bins()) {
    // Neighbouring threads take neighbouring channels or, in NCHW, neighbouring bins.
    const int64_t group = kPacked ? i % groups : i / s.bins() % groups;
    const int64_t bin = kPacked ? i / groups % s.bins() : i % s.bins();
    const int64_t k = i / groups / s.bins(), c = group * kCount, ph = bin / s.out_w, pw = bin % s.out_w;
    const RotatedRoi r = load_rotated_roi(rois + 6 * k, s);
    A sum[kCount] = {};
    if (!r.is_zero()) {
      const int64_t stride = s.map_channel_stride();
      const T* map = maps + s.map_offset(r.image) + c * stride;
      const int count = int(min_of(s.channels - c, int64_t(kCount)));
      const RoiWindow inside = window_of_map(r, s);
      const auto rows = r.v.samples_between(ph, inside.v_low, inside.v_high);
      const auto columns = r.u.samples_between(pw, inside.u_low, inside.u_high);
      const auto add = [&](int64_t y, int64_t x, double exact_weight) {
        const A weight(exact_weight);
        if (weight == A(0)) return;
        const T* p = map + s.pixel_offset(y, x);
        if constexpr (kPacked) {
          const auto pack = load_pack<kCount>(p);
          FV_UNROLL
          for (int n = 0; n < kCount; ++n) sum[n] = multiply_add(weight, to_accum(pack.at[n]), sum[n]);
        } else {
          FV_UNROLL
          for (int n = 0; n < kCount; ++n)
            if (n < count) sum[n] = multiply_add(weight, to_accum(p[n * stride]), sum[n]);
        }
      };
      for (int64_t iy = rows.begin; iy < rows.end; ++iy)
        for (int64_t ix = columns.begin; ix < columns.end; ++ix) {
          const double u = r.u.position(pw, ix), v = r.v.position(ph, iy);
          const Tap<double> y = bilinear_tap(r.y_at(u, v), s.height), x = bilinear_tap(r.x_at(u, v), s.width);
          add(y.low, x.low, y.low_weight * x.low_weight);
          add(y.low, x.high, y.low_weight * x.high_weight);
          add(y.high, x.low, y.high_weight * x.low_weight);
          add(y.high, x.high, y.high_weight * x.high_weight);
        }
      const A share(r.inverse_samples());
      for (A& v : sum) v *= share;
    } else if (r.index_error && group == 0 && bin == 0) {
      report_bad_row(errors, OpId::roi_align_rotated, k);
    }
    T* to = out + s.bin_offset(k, ph, pw) + c * s.out_channel_stride();
    if constexpr (kPacked) {
      Pack<T, kCount> pack;
      FV_UNROLL
      for (int n = 0; n < kCount; ++n) pack.at[n] = from_accum<T>(sum[n]);
      store_pack(to, pack);
    } else {
      FV_UNROLL
      for (int n = 0; n < kCount; ++n)
        if (c + n < s.channels) to[n * s.out_channel_stride()] = from_accum<T>(sum[n]);
    }
  }
}

constexpr int kTile = 8, kChannels = 64;  // pixels per side; channels and threads

// What one sample adds to a tile: to four of its pixels, or fewer (weight 0).
template <class A>
struct TileSample {
  int64_t bin;  // offset of the bin's gradient, channel 0
  A weights[4];
  int at[4];
};

template <class A>
__device__ bool find_sample(const RotatedRoiAlignShape& s, const RotatedRoi& r, int64_t roi, int64_t row,
                            int64_t column, int64_t x0, int64_t y0, TileSample<A>& found) {
  const int64_t ph = row / r.v.samples, pw = column / r.u.samples;
  const double u = r.u.position(pw, column % r.u.samples), v = r.v.position(ph, row % r.v.samples);
  const Tap<double> y = bilinear_tap(r.y_at(u, v), s.height), x = bilinear_tap(r.x_at(u, v), s.width);
  const double share = r.inverse_samples();
  found.bin = s.bin_offset(roi, ph, pw);
  bool any = false;
  FV_UNROLL
  for (int k = 0; k < 4; ++k) {
    const int64_t at_y = (k < 2 ? y.low : y.high) - y0, at_x = (k % 2 ? x.high : x.low) - x0;
    const double weight = (k < 2 ? y.low_weight : y.high_weight) * (k % 2 ? x.high_weight : x.low_weight);
    const bool inside = at_y >= 0 && at_y < kTile && at_x >= 0 && at_x < kTile && weight != 0;
    found.weights[k] = inside ? A(weight * share) : A(0);
    found.at[k] = inside ? int(at_y) * kTile + int(at_x) : 0;
    any |= inside;
  }
  return any;
}

template <class T>
__global__ void __launch_bounds__(kChannels, 8)
    backward_kernel(const __grid_constant__ RotatedRoiAlignShape s, const T* __restrict__ grad,
                    const Accum<T>* __restrict__ rois, T* __restrict__ grad_maps) {
  using A = Accum<T>;
  FV_SHARED(sums, A[kTile * kTile][kChannels]);
  FV_SHARED(samples, TileSample<A>[kChannels]);
  FV_SHARED(touching, int64_t[kChannels]);
  const int64_t chunks = ceil_div(s.channels, int64_t(kChannels));
  const int64_t c = blockIdx.x % chunks * kChannels + threadIdx.x, tile = blockIdx.x / chunks;
  const int64_t across = ceil_div(s.width, int64_t(kTile)), per_image = across * ceil_div(s.height, int64_t(kTile));
  const int64_t image = tile / per_image, y0 = tile % per_image / across * kTile, x0 = tile % across * kTile;

  for (int k = 0; k < kTile * kTile; ++k) sums[k][threadIdx.x] = A(0);
  for (int64_t first = 0; first < s.rois; first += kChannels) {
    // The regions among these that touch the tile, in order.
    bool touch = false;
    const int64_t candidate = first + threadIdx.x;
    if (candidate < s.rois) {
      const RotatedRoi r = load_rotated_roi(rois + 6 * candidate, s);
      touch = !r.is_zero() && r.image == image && !SamplesInTile(r, x0, y0, kTile).none();
    }
    const int count = gather_in_order<kChannels>(touch, candidate, touching);
    for (int n = 0; n < count; ++n) {
      const int64_t roi = touching[n];
      const RotatedRoi r = load_rotated_roi(rois + 6 * roi, s);
      const SamplesInTile in(r, x0, y0, kTile);
      const int64_t columns = in.columns.end - in.columns.begin, total = columns * (in.rows.end - in.rows.begin);
      for (int64_t begin = 0; begin < total; begin += kChannels) {
        const int64_t i = begin + threadIdx.x;
        TileSample<A> own{};
        const bool reads = i < total && find_sample(s, r, roi, in.rows.begin + i / columns,
                                                    in.columns.begin + i % columns, x0, y0, own);
        const int found = gather_in_order<kChannels>(reads, own, samples);
        for (int k = 0; k < found && c < s.channels; ++k) {
          const TileSample<A>& sample = samples[k];
          const A g = to_accum(grad[sample.bin + c * s.out_channel_stride()]);
          FV_UNROLL
          for (int m = 0; m < 4; ++m)
            if (sample.weights[m] != A(0)) {
              A& sum = sums[sample.at[m]][threadIdx.x];
              sum = multiply_add(sample.weights[m], g, sum);
            }
        }
      }
    }
  }
  if (c >= s.channels) return;
  T* map = grad_maps + s.map_offset(image) + c * s.map_channel_stride();
  for (int k = 0; k < kTile * kTile; ++k)
    if (y0 + k / kTile < s.height && x0 + k % kTile < s.width)
      map[s.pixel_offset(y0 + k / kTile, x0 + k % kTile)] = from_accum<T>(sums[k][threadIdx.x]);
}

}  // namespace

template <class T>
void roi_align_rotated(const RotatedRoiAlignShape& s, const T* map, const Accum<T>* rois, T* out,
                       const CudaExec& exec) {
  constexpr int kCount = kVector<T>;
  const int64_t items = s.rois * ceil_div(s.channels, int64_t(kCount)) * s.bins();
  if (items == 0) return;
  const bool packed = s.channels_last && s.channels % kCount == 0;
  launch(exec, packed ? forward_kernel<T, kCount, true> : forward_kernel<T, kCount, false>, grid_for(items), kThreads,
         0, s, map, rois, out, exec.errors);
}

template <class T>
void roi_align_rotated_backward(const RotatedRoiAlignShape& s, const T* grad, const Accum<T>* rois, T* grad_map,
                                const CudaExec& exec) {
  const int64_t tiles = s.batch * ceil_div(s.height, int64_t(kTile)) * ceil_div(s.width, int64_t(kTile));
  const int64_t blocks = tiles * ceil_div(s.channels, int64_t(kChannels));
  if (blocks == 0) return;
  launch(exec, backward_kernel<T>, unsigned(blocks), kChannels, 0, s, grad, rois, grad_map);
}

#define INSTANTIATE(T)                                                                                          \
  template void roi_align_rotated(const RotatedRoiAlignShape&, const T*, const Accum<T>*, T*, const CudaExec&); \
  template void roi_align_rotated_backward(const RotatedRoiAlignShape&, const T*, const Accum<T>*, T*, const CudaExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
