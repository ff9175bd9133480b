// CPU: maps in channels_last, whatever they are in.
#pragma once

#include "huge_array.h"
#include "simd.h"

namespace fastvision {
namespace {

// Whether regions read so much of maps in NCHW that it pays to turn these over first.
template <class A>
bool read_much(int64_t rois, int64_t bins, int64_t channels, int64_t pixels) {
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
