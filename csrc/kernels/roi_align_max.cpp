// The samples of a bin one after another, for vectors of channels, that of NCHW turned over where regions read much of
// the maps. Backward: a task owns channels of an image, so sums have a fixed order.
#include "roi_align_max.h"

#include <algorithm>
#include <vector>

#include "roi_taps.h"
#include "simd.h"

namespace fastvision {
namespace {

// The pixels that a sample reads, as offsets of channel 0, and its number in the bin.
template <class A>
struct Sample {
  int64_t number, offsets[4];
  A weights[4];
  int count;

  Sample(const SamplePixels<A>& pixels, int64_t at, int64_t width, int64_t pixel_stride) : number(at), count(0) {
    const auto add = [&](int64_t y, int64_t x, A weight) {
      if (weight == A(0)) return;
      offsets[count] = (y * width + x) * pixel_stride;
      weights[count++] = weight;
    };
    add(pixels.y.low, pixels.x.low, pixels.y.low_weight * pixels.x.low_weight);
    add(pixels.y.low, pixels.x.high, pixels.y.low_weight * pixels.x.high_weight);
    add(pixels.y.high, pixels.x.low, pixels.y.high_weight * pixels.x.low_weight);
    add(pixels.y.high, pixels.x.high, pixels.y.high_weight * pixels.x.high_weight);
  }
};

constexpr size_t kSamples = 256;  // that are gone through at a time

// The maxima of samples before these and these and, if kPlaces, the numbers of their samples, for `count` channels, at
// most a vector of them. `first`: there are none before. Rounded operation by operation (see sample_value).
// kWhole: a whole vector that lies together.
template <bool kPlaces, bool kWhole, class T>
FV_HD void add_samples(const std::vector<Sample<Accum<T>>>& samples, bool first, const T* map, int64_t channel_stride,
                       int64_t count, Accum<T>* best_to, int64_t* argmax) {
  using A = Accum<T>;
  Vec<A> best = Vec<A>::load(best_to);
  IndexVec<A> at = all_lanes<A>(-1);
  for (size_t k = 0; k < samples.size(); ++k, first = false) {
    Vec<A> value(A(0));
    for (int i = 0; i < samples[k].count; ++i) {
      const T* const p = map + samples[k].offsets[i];
      value =
          value + Vec<A>(samples[k].weights[i]) * (kWhole ? load_vector(p) : load_strided(p, channel_stride, count));
    }
    const auto wins = either(value > best, both(!(value == value), best == best));
    best = first ? value : select(wins, value, best);
    if constexpr (kPlaces) at = first ? all_lanes<A>(0) : select(wins, int64_t(k), at);
  }
  best.store(best_to);
  for (int64_t i = 0; kPlaces && i < count; ++i)
    if (at[i] >= 0) argmax[i] = samples[size_t(at[i])].number;
}

}  // namespace

template <class T, class Isa>
void roi_align_max(const RoiAlignShape& s, const T* input, const Accum<T>* rois, T* out, int64_t* argmax,
                   const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t bins = s.bins(), per_roi = s.channels * bins, width = s.level[0].width;
  const int64_t pixels = s.level[0].height * width;
  const bool turned = !s.channels_last && read_much_of_maps<A>(s.rois, bins, s.channels, s.batch * pixels);
  const ChannelsLast<T> maps(input, s.batch, s.channels, pixels, turned, exec);
  const bool strided = !s.channels_last && !turned;
  const int64_t channel_stride = strided ? pixels : 1, pixel_stride = strided ? 1 : s.channels;
  exec(s.rois, 1 + 16384 / (per_roi + 1), [&](int64_t begin, int64_t end) {
    std::vector<Sample<A>> samples;
    std::vector<A> best(size_t(ceil_div(s.channels, kLanes<A>) * kLanes<A>));
    std::vector<T> values(s.channels_last ? 0 : size_t(per_roi));  // (bin, channel)
    std::vector<int64_t> places(s.channels_last || !argmax ? 0 : size_t(per_roi));
    for (int64_t r = begin; r < end; ++r) {
      const Roi<A> roi = load_roi(rois, nullptr, s, r);
      const T* const map = maps.at + roi.image * s.channels * pixels;
      T* const to = s.channels_last ? out + r * per_roi : values.data();
      int64_t* const at = !argmax ? nullptr : s.channels_last ? argmax + r * per_roi : places.data();
      if (at) std::fill_n(at, per_roi, -1);
      for (int64_t bin = 0; bin < bins; ++bin) {
        const int64_t ph = bin / s.out_w, pw = bin % s.out_w;
        std::fill(best.begin(), best.end(), A(0));
        bool first = false;  // before all others comes the 0 of samples outside of the map
        const auto take = [&] {
          const auto add_whole = at ? add_samples<true, true, T> : add_samples<false, true, T>;
          const auto add_part = at ? add_samples<true, false, T> : add_samples<false, false, T>;
          for (int64_t c = 0; c < s.channels; c += kLanes<A>)
            (strided || c + kLanes<A> > s.channels ? add_part : add_whole)(
                samples, first, map + c * channel_stride, channel_stride, min_of(kLanes<A>, s.channels - c),
                &best[size_t(c)], at ? at + bin * s.channels + c : nullptr);
          samples.clear();
          first = false;
        };
        if (!roi.is_zero()) {
          const BinSamples<A> inside(roi, ph, pw);
          first = !inside.any_outside;
          for (int64_t iy = inside.rows.begin; iy < inside.rows.end; ++iy)
            for (int64_t ix = inside.columns.begin; ix < inside.columns.end; ++ix) {
              const int64_t number = iy * roi.x.samples + ix;
              samples.emplace_back(SamplePixels<A>(roi, ph, pw, number), number, width, pixel_stride);
              if (samples.size() == kSamples) take();
            }
          if (!samples.empty()) take();
        }
        for (int64_t c = 0; c < s.channels; c += kLanes<A>)
          store_vector(to + bin * s.channels + c, Vec<A>::load(&best[size_t(c)]), min_of(kLanes<A>, s.channels - c));
      }
      if (s.channels_last) continue;
      transpose(to, s.channels, bins, s.channels, out + r * per_roi, bins);
      if (!at) continue;
      transpose(reinterpret_cast<const double*>(at), s.channels, bins, s.channels,
                reinterpret_cast<double*>(argmax + r * per_roi), bins);
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
            const Sample<A> sample(SamplePixels<A>(roi, ph, pw, argmax[from]), argmax[from], width, channels);
            const A g = to_accum(grad[from]);
            for (int i = 0; i < sample.count; ++i) sums[size_t(sample.offsets[i] + c)] += sample.weights[i] * g;
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
