// A bin reads channels of its own, one for each output channel. So a task takes one bin of all regions of an image and
// the part of these channels that the regions reach, with the channels made innermost: then a bin is a sum of vectors.
// Backward: the task owns the bin's channels, so every sum is in the order of the regions. Products and sums are
// rounded one by one: results are the same for every instruction set. A channels_last map is copied to planes and back.
#include "ps_roi.h"

#include <memory>
#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

template <class A>
constexpr int64_t kLanes = Vec<A>::kLanes;

// The pixels along one axis that a bin reads, the weights of its samples added up.
template <class A>
struct AxisTaps {
  struct Pixel {
    int64_t at;
    A weight;
  };
  std::vector<Pixel> pixels;

  template <class Bins>
  void set(const Bins& bins, int64_t p) {
    pixels.clear();
    const auto steps = bins.steps(p);
    for (int64_t i = steps.begin; i < steps.end; ++i) {
      const Tap<A> tap = bins.tap(p, i);
      if (tap.low_weight != A(0)) add(tap.low, tap.low_weight);
      if (tap.high_weight != A(0)) add(tap.high, tap.high_weight);
    }
  }

 private:
  void add(int64_t at, A weight) {  // steps ascend, so the pixel is one of the last two or new
    for (size_t k = pixels.size(); k > 0 && k + 2 > pixels.size(); --k)
      if (pixels[k - 1].at == at) {
        pixels[k - 1].weight += weight;
        return;
      }
    pixels.push_back({at, weight});
  }
};

// The regions of each image, in order.
template <class Bins, class A>
std::vector<std::vector<int64_t>> regions_by_image(const PsRoiShape& s, const A* rois) {
  std::vector<std::vector<int64_t>> by_image(size_t(s.map.batch));
  for (int64_t r = 0; r < s.map.rois; ++r) {
    const auto region = load_region(rois, s, r, Bins{});
    if (!region.is_zero()) by_image[size_t(region.image)].push_back(r);
  }
  return by_image;
}

struct Range {
  int64_t begin, end;

  template <class A>
  void include(const AxisTaps<A>& taps) {
    if (taps.pixels.empty()) return;
    begin = min_of(begin, taps.pixels.front().at);
    end = max_of(end, taps.pixels.back().at + 1);
  }
};

// One bin of all regions of an image.
template <class T, class Bins>
class BinTask {
  using A = Accum<T>;

 public:
  BinTask(const PsRoiShape& s, const A* rois) : s_(s), map_(s.map.level[0]), rois_(rois) {}

  // planes: channel c of the output reads plane c * bins.
  void forward(int64_t bin, const std::vector<int64_t>& regions, const T* planes, T* out) {
    start(bin);
    Range rows{map_.height, 0}, columns{map_.width, 0};
    for (const int64_t r : regions) {
      set_taps(r);
      rows.include(y_);
      columns.include(x_);
    }
    const int64_t channels = s_.channels_out(), across = columns.end - columns.begin;
    if (rows.begin < rows.end && across > 0) tile_.resize(size_t((rows.end - rows.begin) * across * channels));
    for (int64_t y = rows.begin; y < rows.end && across > 0; ++y)
      transpose(planes + y * map_.width + columns.begin, s_.map.bins() * map_.height * map_.width, channels, across,
                &tile_[size_t((y - rows.begin) * across * channels)], channels);
    for (const int64_t r : regions) {
      const A share = set_taps(r);
      for (int64_t c = 0; c < channels; c += kLanes<A>) {
        const int64_t count = min_of(kLanes<A>, channels - c);
        Vec<A> sum(A(0));
        for (const auto& y : y_.pixels) {
          const int64_t row = ((y.at - rows.begin) * across - columns.begin) * channels + c;
          for (const auto& x : x_.pixels) {
            const A* p = tile_.data() + (row + x.at * channels);
            sum = sum + Vec<A>(y.weight * x.weight) * (count == kLanes<A> ? load_vector(p) : load_vector(p, count));
          }
        }
        store_strided(out + out_offset(r, c), out_stride(), sum / Vec<A>(share), count);
      }
    }
  }

  void backward(int64_t bin, const std::vector<int64_t>& regions, const T* grad, T* planes) {
    start(bin);
    const int64_t channels = s_.channels_out(), pixels = map_.height * map_.width;
    tile_.assign(size_t(pixels * channels), A(0));
    for (const int64_t r : regions) {
      const A share = set_taps(r);
      for (int64_t c = 0; c < channels; c += kLanes<A>) {
        const int64_t count = min_of(kLanes<A>, channels - c);
        const Vec<A> g = load_strided(grad + out_offset(r, c), out_stride(), count) / Vec<A>(share);
        for (const auto& y : y_.pixels)
          for (const auto& x : x_.pixels) {
            A* p = &tile_[size_t((y.at * map_.width + x.at) * channels + c)];
            const Vec<A> add = Vec<A>(y.weight * x.weight) * g;
            if (count == kLanes<A>) store_vector(p, load_vector(p) + add);
            else store_vector(p, load_vector(p, count) + add, count);
          }
      }
    }
    transpose(tile_.data(), channels, pixels, channels, planes, s_.map.bins() * pixels);
  }

 private:
  void start(int64_t bin) {
    bin_ = bin;
    ph_ = bin / s_.map.out_w;
    pw_ = bin % s_.map.out_w;
  }
  A set_taps(int64_t r) {  // returns what the sum is divided by
    const auto region = load_region(rois_, s_, r, Bins{});
    y_.set(region.y, ph_);
    x_.set(region.x, pw_);
    return max_of(region.y.length(ph_) * region.x.length(pw_), A(1));
  }
  int64_t out_offset(int64_t r, int64_t c) const { return s_.out_offset(r, c * s_.map.bins() + bin_); }
  int64_t out_stride() const { return s_.map.channels_last ? 1 : s_.map.bins(); }

  const PsRoiShape& s_;
  const RoiAlignShape::Level& map_;
  const A* rois_;
  int64_t bin_, ph_, pw_;
  AxisTaps<A> y_, x_;
  std::vector<A> tile_;  // (pixels, channels)
};

// Between channels_last and planes, a few rows of the transposed matrix at a time.
template <class T, class Isa>
void transpose_images(const T* from, int64_t images, int64_t rows, int64_t columns, T* to, const Cpu<Isa>& exec) {
  constexpr int64_t kRows = 64;
  const int64_t blocks = ceil_div(rows, kRows);
  exec(images * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / blocks * rows * columns, first = task % blocks * kRows;
      transpose(from + image + first * columns, columns, min_of(kRows, rows - first), columns, to + image + first,
                rows);
    }
  });
}

}  // namespace

template <class T, class Bins, class Isa>
void ps_roi(const PsRoiShape& s, Bins, const T* input, const Accum<T>* rois, T* out, const Cpu<Isa>& exec) {
  const auto by_image = regions_by_image<Bins>(s, rois);
  const int64_t pixels = s.map.level[0].height * s.map.level[0].width;
  const auto copy =
      std::make_unique_for_overwrite<T[]>(s.map.channels_last ? size_t(s.map.batch * s.map.channels * pixels) : 0);
  if (s.map.channels_last) transpose_images(input, s.map.batch, pixels, s.map.channels, copy.get(), exec);
  const T* const planes = s.map.channels_last ? copy.get() : input;
  for (int64_t r = 0; r < s.map.rois; ++r)
    if (load_region(rois, s, r, Bins{}).is_zero())
      memset(out + r * s.map.channels, 0, size_t(s.map.channels) * sizeof(T));
  exec(s.map.batch * s.map.bins(), 1, [&](int64_t begin, int64_t end) {
    BinTask<T, Bins> task(s, rois);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / s.map.bins(), bin = k % s.map.bins();
      task.forward(bin, by_image[size_t(image)], planes + (image * s.map.channels + bin) * pixels, out);
    }
  });
}

template <class T, class Bins, class Isa>
void ps_roi_backward(const PsRoiShape& s, Bins, const T* grad, const Accum<T>* rois, T* grad_input,
                     const Cpu<Isa>& exec) {
  const auto by_image = regions_by_image<Bins>(s, rois);
  const int64_t pixels = s.map.level[0].height * s.map.level[0].width;
  const auto copy =
      std::make_unique_for_overwrite<T[]>(s.map.channels_last ? size_t(s.map.batch * s.map.channels * pixels) : 0);
  T* const planes = s.map.channels_last ? copy.get() : grad_input;
  exec(s.map.batch * s.map.bins(), 1, [&](int64_t begin, int64_t end) {
    BinTask<T, Bins> task(s, rois);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / s.map.bins(), bin = k % s.map.bins();
      task.backward(bin, by_image[size_t(image)], grad, planes + (image * s.map.channels + bin) * pixels);
    }
  });
  if (s.map.channels_last) transpose_images(planes, s.map.batch, s.map.channels, pixels, grad_input, exec);
}

#define INSTANTIATE_BINS(T, Bins)                                                                         \
  template void ps_roi(const PsRoiShape&, Bins<Accum<T>>, const T*, const Accum<T>*, T*, const CpuExec&); \
  template void ps_roi_backward(const PsRoiShape&, Bins<Accum<T>>, const T*, const Accum<T>*, T*, const CpuExec&);
#define INSTANTIATE(T) INSTANTIATE_BINS(T, SampledBins) INSTANTIATE_BINS(T, PixelBins)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_BINS

}  // namespace fastvision
