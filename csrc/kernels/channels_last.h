// CPU: maps in channels_last, whatever they are in.
#pragma once

#include "huge_array.h"
#include "simd.h"

namespace fastvision {
namespace {

// Channels [0, count) of pixels next to each other, a vector each: pixels are `pixel_stride` apart, channels
// `channel_stride`, and one of them is 1.
template <class T>
void store_pixels(const Vec<Accum<T>>* from, int64_t pixels, int64_t count, int64_t pixel_stride,
                  int64_t channel_stride, T* to) {
  using A = Accum<T>;
  if (channel_stride == 1)
    for (int64_t x = 0; x < pixels; ++x) store_vector(to + x * pixel_stride, from[x], count);
  else transpose(reinterpret_cast<const A*>(from), kLanes<A>, pixels, count, to, channel_stride);
}

// Whether regions read so much of maps in NCHW that it pays to turn these over first.
template <class A>
bool read_much_of_maps(int64_t rois, int64_t bins, int64_t channels, int64_t pixels) {
  return rois * bins > pixels / 8 && 2 * channels >= kLanes<A>;
}

// Maps, or gradients of regions, as (image, pixel, channel) or (region, bin, channel): those given, or turned over.
template <class T>
class ChannelsLast {
 public:
  template <class Isa>
  ChannelsLast(const T* maps, int64_t images, int64_t channels, int64_t pixels, bool turned, const Cpu<Isa>& exec)
      : turned_(turned ? size_t(images * channels * pixels) : 0, turned && images * channels * pixels >= 1 << 20),
        at(turned ? turned_.get() : maps) {
    constexpr int64_t kPixels = 256;  // of a task
    const int64_t blocks = ceil_div(pixels, kPixels);
    const bool past_caches = images * channels * pixels * int64_t(sizeof(T)) >= kStreamedBytes;
    exec(turned ? images * blocks : 0, 1 + 16384 / (channels * min_of(pixels, kPixels) + 1),
         [&](int64_t begin, int64_t end) {
           for (int64_t k = begin; k < end; ++k) {
             const int64_t image = k / blocks * channels * pixels, first = k % blocks * kPixels;
             transpose(maps + image + first, pixels, channels, min_of(kPixels, pixels - first),
                       turned_.get() + image + first * channels, channels, past_caches);
           }
           finish_streaming();
         });
  }

 private:
  const HugeArray<T> turned_;

 public:
  const T* const at;
};

}  // namespace
}  // namespace fastvision
