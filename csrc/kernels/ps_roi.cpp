// A bin reads channels of its own, one for each output channel. So a task takes one bin of all regions of an image and
// these channels, innermost: then a bin is a sum of vectors. A channels_last map is copied to such parts at once, one
// in NCHW for each task, only what the regions reach. (Few channels: ps_roi_in_place.h, region by region.) Results are
// [region][bin][channel] first, as in channels_last. Backward: the task owns the bin's channels, so every sum is in the
// order of the regions. Products and sums are rounded one by one: results are the same for every instruction set.
#include "ps_roi.h"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "ps_roi_in_place.h"
#include "ps_roi_taps.h"
#include "unrolled.h"

namespace fastvision {
namespace {

constexpr int64_t kRegions = 32, kPixels = 256;  // at least for a thread

template <class Bins, class A, class Isa>
std::vector<RegionPixels<A, Bins>> load_regions(const PsRoiShape& s, const A* rois, const Cpu<Isa>& exec) {
  std::vector<RegionPixels<A, Bins>> regions(size_t(s.map.rois));
  exec(s.map.rois, kRegions, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) regions[size_t(r)].set(s, rois, r, s.map.rois);
  });
  return regions;
}

// The indices of the regions of each image, in order.
template <class Regions>
std::vector<std::vector<int64_t>> by_image(const PsRoiShape& s, const Regions& regions) {
  std::vector<std::vector<int64_t>> indices(size_t(s.map.batch));
  for (int64_t r = 0; r < s.map.rois; ++r)
    if (const auto& region = regions[size_t(r)].region; !region.is_zero()) indices[size_t(region.image)].push_back(r);
  return indices;
}

struct Range {
  int64_t begin, end;

  template <class Pixel>
  void include(const Pixel* first, const Pixel* last) {
    if (first == last) return;
    begin = min_of(begin, first->at);
    end = max_of(end, (last - 1)->at + 1);
  }
};

// One bin of the regions of an image.
template <class T, class Bins>
class BinTask {
  using A = Accum<T>;
  using Regions = std::vector<RegionPixels<A, Bins>>;

 public:
  BinTask(const PsRoiShape& s, const Regions& regions)
      : s_(s), map_(s.map.level[0]), channels_(s.channels_out()), regions_(regions), bins_(s) {}

  // planes: channel c of the output reads plane c * bins. out: [region][bin][channel].
  void forward_planes(int64_t bin, const std::vector<int64_t>& indices, const T* planes, T* out) {
    Range rows{map_.height, 0}, columns{map_.width, 0};
    for (const int64_t r : indices) {
      const auto taps = bins_.taps(regions_[size_t(r)], bin);
      rows.include(taps.y, taps.y_end);
      columns.include(taps.x, taps.x_end);
    }
    const int64_t across = max_of(columns.end - columns.begin, int64_t(0));
    part_.resize(size_t(max_of(rows.end - rows.begin, int64_t(0)) * across * channels_));
    for (int64_t y = rows.begin; y < rows.end && across > 0; ++y)
      transpose(planes + y * map_.width + columns.begin, s_.map.bins() * map_.height * map_.width, channels_, across,
                part_.data() + (y - rows.begin) * across * channels_, channels_);
    forward(bin, indices, part_.data(), rows.begin, columns.begin, across, out);
  }

  // part: [row][column][channel], from the first row and column on.
  void forward(int64_t bin, const std::vector<int64_t>& indices, const A* part, int64_t first_row, int64_t first_column,
               int64_t across, T* out) {
    for (const int64_t r : indices) {
      const auto taps = bins_.taps(regions_[size_t(r)], bin);
      const Vec<A> share(taps.share);
      T* const to = out + r * s_.map.channels + bin * channels_;
      for (int64_t c = 0; c < channels_; c += kLanes<A>) {
        const int64_t count = min_of(kLanes<A>, channels_ - c);
        Vec<A> sum(A(0));
        for (auto row = taps.y; row != taps.y_end; ++row)
          for (auto column = taps.x; column != taps.x_end; ++column) {
            const A* p = part + ((row->at - first_row) * across + column->at - first_column) * channels_ + c;
            sum = sum + Vec<A>(row->weight * column->weight) * load_vector(p, count);
          }
        store_vector(to + c, sum / share, count);
      }
    }
  }

  // grad: [region][bin][channel]; part: [pixel][channel], of the whole map.
  void backward(int64_t bin, const std::vector<int64_t>& indices, const T* grad, A* part) {
    std::fill_n(part, map_.height * map_.width * channels_, A(0));
    for (const int64_t r : indices) {
      const auto taps = bins_.taps(regions_[size_t(r)], bin);
      const Vec<A> share(taps.share);
      const T* const from = grad + r * s_.map.channels + bin * channels_;
      for (int64_t c = 0; c < channels_; c += kLanes<A>) {
        const int64_t count = min_of(kLanes<A>, channels_ - c);
        const Vec<A> g = load_vector(from + c, count) / share;
        for (auto row = taps.y; row != taps.y_end; ++row)
          for (auto column = taps.x; column != taps.x_end; ++column) {
            A* const p = part + (row->at * map_.width + column->at) * channels_ + c;
            store_vector(p, load_vector(p, count) + Vec<A>(row->weight * column->weight) * g, count);
          }
      }
    }
  }

 private:
  const PsRoiShape& s_;
  const RoiAlignShape::Level& map_;
  const int64_t channels_;
  const Regions& regions_;
  std::vector<A> part_;  // of forward_planes
  TapsOfBins<A, Bins> bins_;
};

// f(image, pixel) for every pixel of the maps.
template <class Isa, class F>
void for_each_pixel(const PsRoiShape& s, const Cpu<Isa>& exec, F&& f) {
  const int64_t pixels = s.pixels();
  exec(s.map.batch * pixels, kPixels, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i / pixels, i % pixels);
  });
}

// Whether a map in channels_last is already what one bin reads.
template <class T>
bool is_one_part(const PsRoiShape& s) {
  return std::is_same_v<T, Accum<T>> && s.map.bins() == 1;
}

// In NCHW a row of bins at a time, whose planes stay in the cache from when they are cleared.
template <class A, class Bins, class Isa>
void backward_in_place(const PsRoiShape& s, const std::vector<RegionPixels<A, Bins>>& regions,
                       const std::vector<std::vector<int64_t>>& by_image, const A* grad, A* grad_input,
                       const Cpu<Isa>& exec) {
  const int64_t channels = s.channels_out(), bins = s.map.bins(), pixels = s.pixels();
  const bool planes = !s.map.channels_last;
  if (!planes)
    for_each_pixel(s, exec, [&](int64_t image, int64_t pixel) {
      std::fill_n(grad_input + (image * pixels + pixel) * s.map.channels, s.map.channels, A(0));
    });
  const int64_t shares = planes ? s.map.out_h : min_of(bins, ceil_div(exec.threads, max_of(s.map.batch, int64_t(1))));
  exec(s.map.batch * shares, 1, [&](int64_t begin, int64_t end) {
    TapsOfBins<A, Bins> of_bins(s);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / shares, first = k % shares * bins / shares, last = (k % shares + 1) * bins / shares;
      A* const map = grad_input + image * s.map.channels * pixels;
      for (int64_t c = 0; planes && c < channels; ++c)
        std::fill_n(map + (c * bins + first) * pixels, (last - first) * pixels, A(0));
      for (const int64_t r : by_image[size_t(image)])
        add_in_place(s, regions[size_t(r)], of_bins, first, last, grad + r * s.map.channels, map);
    }
  });
}

}  // namespace

template <class T, class Bins, class Isa>
void ps_roi(const PsRoiShape& s, Bins, const T* input, const Accum<T>* rois, T* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t channels = s.channels_out(), bins = s.map.bins(), pixels = s.pixels(), part = pixels * channels;
  std::vector<RegionPixels<A, Bins>> regions;
  if (!has_few_channels(s)) regions = load_regions<Bins>(s, rois, exec);
  if (has_few_channels(s) || read_little(s, regions))
    return exec(s.map.rois, 1 + 4096 / s.map.channels, [&](int64_t begin, int64_t end) {
      TapsOfBins<A, Bins> of_bins(s);
      RegionPixels<A, Bins> region;
      for (int64_t r = begin; r < end; ++r) {
        region.set(s, rois, r, 1);
        T* const to = out + r * s.map.channels;
        if (region.region.is_zero()) std::fill_n(to, s.map.channels, T{});
        else pool_in_place(s, region, of_bins, input + region.region.image * s.map.channels * pixels, to);
      }
    });
  const auto indices = by_image(s, regions);
  const bool copied = s.map.channels_last && !is_one_part<T>(s);
  const auto copies = std::make_unique_for_overwrite<A[]>(copied ? size_t(s.map.batch * bins * part) : 0);
  const A* const parts = copied ? copies.get() : reinterpret_cast<const A*>(input);
  if (copied)
    for_each_pixel(s, exec, [&](int64_t image, int64_t pixel) {
      transpose(input + (image * pixels + pixel) * s.map.channels, bins, channels, bins,
                copies.get() + image * bins * part + pixel * channels, part);
    });
  exec(s.map.batch * bins, 1, [&](int64_t begin, int64_t end) {
    BinTask<T, Bins> task(s, regions);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / bins, bin = k % bins;
      if (s.map.channels_last)
        task.forward(bin, indices[size_t(image)], parts + k * part, 0, 0, s.map.level[0].width, out);
      else task.forward_planes(bin, indices[size_t(image)], input + (image * s.map.channels + bin) * pixels, out);
    }
  });
  exec(s.map.rois, kRegions, [&](int64_t begin, int64_t end) {
    std::vector<T> turned;
    for (int64_t r = begin; r < end; ++r) {
      T* const to = out + r * s.map.channels;
      if (regions[size_t(r)].region.is_zero()) {
        std::fill_n(to, s.map.channels, T{});
      } else if (!s.map.channels_last) {
        turned.assign(to, to + s.map.channels);
        transpose(turned.data(), channels, bins, channels, to, bins);
      }
    }
  });
}

template <class T, class Bins, class Isa>
void ps_roi_backward(const PsRoiShape& s, Bins, const T* grad, const Accum<T>* rois, T* grad_input,
                     const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const auto regions = load_regions<Bins>(s, rois, exec);
  const auto indices = by_image(s, regions);
  const int64_t channels = s.channels_out(), bins = s.map.bins(), pixels = s.pixels(), part = pixels * channels;
  const bool channels_last = s.map.channels_last;
  if constexpr (std::is_same_v<T, A>)
    if (has_few_channels(s) || read_little(s, regions))
      return backward_in_place(s, regions, indices, grad, grad_input, exec);
  const ChannelsLast<T> by_bin(grad, s.map.rois, channels, bins, !channels_last, exec);
  const bool copied = channels_last && !is_one_part<T>(s);
  const auto copies = std::make_unique_for_overwrite<A[]>(copied ? size_t(s.map.batch * bins * part) : 0);
  A* const parts = copied ? copies.get() : reinterpret_cast<A*>(grad_input);
  exec(s.map.batch * bins, 1, [&](int64_t begin, int64_t end) {
    BinTask<T, Bins> task(s, regions);
    std::vector<A> own(channels_last ? 0 : size_t(part));
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / bins, bin = k % bins;
      task.backward(bin, indices[size_t(image)], by_bin.at, channels_last ? parts + k * part : own.data());
      if (!channels_last)
        transpose(own.data(), channels, pixels, channels, grad_input + (image * s.map.channels + bin) * pixels,
                  bins * pixels);
    }
  });
  if (copied)
    for_each_pixel(s, exec, [&](int64_t image, int64_t pixel) {
      transpose(copies.get() + image * bins * part + pixel * channels, part, bins, channels,
                grad_input + (image * pixels + pixel) * s.map.channels, bins);
    });
}

#define INSTANTIATE_BINS(T, Bins)                                                                         \
  template void ps_roi(const PsRoiShape&, Bins<Accum<T>>, const T*, const Accum<T>*, T*, const CpuExec&); \
  template void ps_roi_backward(const PsRoiShape&, Bins<Accum<T>>, const T*, const Accum<T>*, T*, const CpuExec&);
#define INSTANTIATE(T) INSTANTIATE_BINS(T, SampledBins) INSTANTIATE_BINS(T, PixelBins)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_BINS

}  // namespace fastvision
