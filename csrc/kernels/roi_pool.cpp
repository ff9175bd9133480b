// channels_last: vectors of channels walk the pixels of a bin with their running maximum and its pixel. NCHW: one plane
// at a time. Backward: threads own channels of an image, so sums have a fixed order.
#include "roi_pool.h"

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

template <class A>
constexpr int64_t kLanes = Vec<A>::kLanes;

template <class T>
void pool_channels_last(const RoiPoolShape& s, const T* image, const PoolRoi<Accum<T>>& roi, T* out, int32_t* argmax) {
  using A = Accum<T>;
  for (int64_t ph = 0; ph < s.out_h; ++ph) {
    const auto rows = roi.y.pixels_of(ph);
    for (int64_t pw = 0; pw < s.out_w; ++pw, out += s.channels, argmax += s.channels) {
      const auto columns = roi.x.pixels_of(pw);
      if (rows.end <= rows.begin || columns.end <= columns.begin) {
        memset(out, 0, size_t(s.channels) * sizeof(T));
        memset(argmax, 255, size_t(s.channels) * sizeof(int32_t));
        continue;
      }
      for (int64_t c = 0; c < s.channels; c += kLanes<A>) {
        const int64_t count = min_of(kLanes<A>, s.channels - c);
        const auto load = [&](int64_t pixel) {
          const T* p = image + pixel * s.channels + c;
          return count == kLanes<A> ? load_vector(p) : load_vector(p, count);
        };
        const int64_t first = rows.begin * s.width + columns.begin;
        Vec<A> best = load(first);
        IndexVec<A> at = all_lanes<A>(first);
        for (int64_t y = rows.begin; y < rows.end; ++y)
          for (int64_t x = columns.begin; x < columns.end; ++x) {
            const Vec<A> v = load(y * s.width + x);
            const auto wins = either(v > best, both(!(v == v), best == best));
            best = select(wins, v, best);
            at = select(wins, y * s.width + x, at);
          }
        store_vector(out + c, best, count);
        for (int64_t k = 0; k < count; ++k) argmax[c + k] = int32_t(at[k]);
      }
    }
  }
}

template <class T>
void pool_planes(const RoiPoolShape& s, const T* image, const PoolRoi<Accum<T>>& roi, T* out, int32_t* argmax) {
  using A = Accum<T>;
  for (int64_t c = 0; c < s.channels; ++c) {
    const T* plane = image + c * s.pixels();
    for (int64_t ph = 0; ph < s.out_h; ++ph) {
      const auto rows = roi.y.pixels_of(ph);
      for (int64_t pw = 0; pw < s.out_w; ++pw) {
        const auto columns = roi.x.pixels_of(pw);
        A best(0);
        int64_t at = -1;
        for (int64_t y = rows.begin; y < rows.end; ++y)
          for (int64_t x = columns.begin; x < columns.end; ++x) {
            const A v = to_accum(plane[y * s.width + x]);
            if (at < 0 || replaces(v, best)) best = v, at = y * s.width + x;
          }
        *out++ = from_accum<T>(best);
        *argmax++ = int32_t(at);
      }
    }
  }
}

}  // namespace

template <class T, class Isa>
void roi_pool(const RoiPoolShape& s, const T* input, const Accum<T>* rois, T* out, int32_t* argmax,
              const Cpu<Isa>& exec) {
  const int64_t per_roi = s.channels * s.bins();
  exec(s.rois, 1 + 16384 / (per_roi + 1), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto roi = load_pool_roi(rois, s, r);
      T* to = out + r * per_roi;
      int32_t* index = argmax + r * per_roi;
      if (roi.is_zero()) {
        memset(to, 0, size_t(per_roi) * sizeof(T));
        memset(index, 255, size_t(per_roi) * sizeof(int32_t));
        continue;
      }
      const T* image = input + s.image_offset(roi.image);
      if (s.channels_last) pool_channels_last(s, image, roi, to, index);
      else pool_planes(s, image, roi, to, index);
    }
  });
}

template <class T, class Isa>
void roi_pool_backward(const RoiPoolShape& s, const T* grad, const Accum<T>* rois, const int32_t* argmax, T* grad_input,
                       const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t chunk = s.channels_last ? 64 : 8, chunks = ceil_div(s.channels, chunk);
  exec(s.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> sums;  // (pixels, channels of the task), or the other way round
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / chunks, first = task % chunks * chunk;
      const int64_t channels = min_of(chunk, s.channels - first);
      const int64_t pixel_stride = s.channels_last ? channels : 1, channel_stride = s.channels_last ? 1 : s.pixels();
      sums.assign(size_t(s.pixels() * channels), A(0));
      for (int64_t r = 0; r < s.rois; ++r) {
        if (rois[5 * r] != A(image)) continue;
        for (int64_t bin = 0; bin < s.bins(); ++bin) {
          const int64_t at = s.bin_offset(r, bin) + first * s.out_channel_stride();
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t pixel = argmax[at + c * s.out_channel_stride()];
            if (pixel >= 0 && pixel < s.pixels())
              sums[size_t(pixel * pixel_stride + c * channel_stride)] +=
                  to_accum(grad[at + c * s.out_channel_stride()]);
          }
        }
      }
      T* to = grad_input + s.image_offset(image) + first * s.channel_stride();
      for (int64_t pixel = 0; pixel < s.pixels(); ++pixel)
        for (int64_t c = 0; c < channels; ++c)
          to[pixel * s.pixel_stride() + c * s.channel_stride()] =
              from_accum<T>(sums[size_t(pixel * pixel_stride + c * channel_stride)]);
    }
  });
}

#define INSTANTIATE(T)                                                                                  \
  template void roi_pool(const RoiPoolShape&, const T*, const Accum<T>*, T*, int32_t*, const CpuExec&); \
  template void roi_pool_backward(const RoiPoolShape&, const T*, const Accum<T>*, const int32_t*, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
