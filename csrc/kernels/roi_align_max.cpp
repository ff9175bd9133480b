// The samples of a bin one after another, for all channels at a time. Backward: a task owns channels of an image, so
// sums have a fixed order.
#include "roi_align_max.h"

#include <vector>

#include "simd.h"

namespace fastvision {

template <class T, class Isa>
void roi_align_max(const RoiAlignShape& s, const T* input, const Accum<T>* rois, T* out, int64_t* argmax,
                   const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t per_roi = s.channels * s.bins(), row_stride = s.pixel_offset(0, 1, 0);
  const int64_t pixel_stride = s.pixel_offset(0, 0, 1);
  exec(s.rois, 1 + 16384 / (per_roi + 1), [&](int64_t begin, int64_t end) {
    std::vector<A> best(static_cast<size_t>(s.channels));
    std::vector<int64_t> at(static_cast<size_t>(s.channels));
    for (int64_t r = begin; r < end; ++r) {
      const Roi<A> roi = load_roi(rois, nullptr, s, r);
      const T* map = roi.is_zero() ? nullptr : input + s.map_offset(0, roi.image);
      for (int64_t bin = 0; bin < s.bins(); ++bin) {
        const int64_t ph = bin / s.out_w, pw = bin % s.out_w;
        for (int64_t c = 0; c < s.channels; ++c) best[size_t(c)] = A(0), at[size_t(c)] = -1;
        if (!roi.is_zero()) {
          const BinSamples<A> samples(roi, ph, pw);
          bool first = !samples.any_outside;
          for (int64_t iy = samples.rows.begin; iy < samples.rows.end; ++iy)
            for (int64_t ix = samples.columns.begin; ix < samples.columns.end; ++ix) {
              const int64_t sample = iy * roi.x.samples + ix;
              const SamplePixels<A> pixels(roi, ph, pw, sample);
              for (int64_t c = 0; c < s.channels; ++c) {
                const A v =
                    sample_value(pixels.y, pixels.x, map + c * s.map_channel_stride(0), row_stride, pixel_stride);
                if (first || replaces(v, best[size_t(c)])) best[size_t(c)] = v, at[size_t(c)] = sample;
              }
              first = false;
            }
        }
        for (int64_t c = 0; c < s.channels; ++c) {
          const int64_t to = s.bin_offset(r, ph, pw) + c * s.out_channel_stride();
          out[to] = from_accum<T>(best[size_t(c)]);
          argmax[to] = at[size_t(c)];
        }
      }
    }
  });
}

template <class T, class Isa>
void roi_align_max_backward(const RoiAlignShape& s, const T* grad, const Accum<T>* rois, const int64_t* argmax,
                            T* grad_input, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  constexpr int64_t kChannels = 16;
  const int64_t chunks = ceil_div(s.channels, kChannels), height = s.level[0].height, width = s.level[0].width;
  exec(s.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> sums;  // (pixels, channels of the task)
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / chunks, first = task % chunks * kChannels;
      const int64_t channels = min_of(kChannels, s.channels - first);
      sums.assign(size_t(height * width * channels), A(0));
      for (int64_t r = 0; r < s.rois; ++r) {
        const Roi<A> roi = load_roi(rois, nullptr, s, r);
        if (roi.is_zero() || roi.image != image) continue;
        for (int64_t bin = 0; bin < s.bins(); ++bin) {
          const int64_t ph = bin / s.out_w, pw = bin % s.out_w;
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t from = s.bin_offset(r, ph, pw) + (first + c) * s.out_channel_stride();
            if (argmax[from] < 0) continue;
            const SamplePixels<A> pixels(roi, ph, pw, argmax[from]);
            const A g = to_accum(grad[from]);
            const auto add = [&](int64_t y, int64_t x, A weight) {
              if (weight != A(0)) sums[size_t((y * width + x) * channels + c)] += weight * g;
            };
            add(pixels.y.low, pixels.x.low, pixels.y.low_weight * pixels.x.low_weight);
            add(pixels.y.low, pixels.x.high, pixels.y.low_weight * pixels.x.high_weight);
            add(pixels.y.high, pixels.x.low, pixels.y.high_weight * pixels.x.low_weight);
            add(pixels.y.high, pixels.x.high, pixels.y.high_weight * pixels.x.high_weight);
          }
        }
      }
      T* to = grad_input + s.map_offset(0, image) + first * s.map_channel_stride(0);
      for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x)
          for (int64_t c = 0; c < channels; ++c)
            to[s.pixel_offset(0, y, x) + c * s.map_channel_stride(0)] =
                from_accum<T>(sums[size_t((y * width + x) * channels + c)]);
    }
  });
}

#define INSTANTIATE(T)                                                                                        \
  template void roi_align_max(const RoiAlignShape&, const T*, const Accum<T>*, T*, int64_t*, const CpuExec&); \
  template void roi_align_max_backward(const RoiAlignShape&, const T*, const Accum<T>*, const int64_t*, T*,   \
                                       const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
