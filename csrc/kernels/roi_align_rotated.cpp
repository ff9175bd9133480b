// Per region the pixels of some bins are worked out once, with their weights, for all channels. channels_last: vectors
// of channels, all pixels of a bin at a time. NCHW is turned over where regions read much of the maps; otherwise the
// two by two pixels of a sample are one short vector, plane by plane. Backward: a task owns tiles of pixels, so every
// sum has a fixed order and every pixel is written once.
#include "roi_align_rotated.h"

#include <algorithm>
#include <vector>

#include "channels_last.h"
#include "pixel_sums.h"
#include "simd.h"

namespace fastvision {
namespace {

// The two by two pixels of a sample.
template <class A>
struct PairOf;
template <>
struct PairOf<float> {
  typedef float pair __attribute__((vector_size(8)));
  typedef float quad __attribute__((vector_size(16)));
};
template <>
struct PairOf<double> {
  typedef double pair __attribute__((vector_size(16)));
  typedef double quad __attribute__((vector_size(32)));
};

template <class T>
FV_HD void load_quad(const T* top, const T* bottom, typename PairOf<Accum<T>>::quad& quad) {
  using A = Accum<T>;
  if constexpr (sizeof(T) == sizeof(A)) {
    typename PairOf<A>::pair a, b;
    memcpy(&a, top, sizeof a);
    memcpy(&b, bottom, sizeof b);
    quad = __builtin_shufflevector(a, b, 0, 1, 2, 3);
  } else {
    // Not element by element: GCC 12 then loses values at -O1 with sanitizers.
    const A values[4] = {to_accum(top[0]), to_accum(top[1]), to_accum(bottom[0]), to_accum(bottom[1])};
    memcpy(&quad, values, sizeof quad);
  }
}

// What a region reads, as offsets into its plane (NCHW) or image (channels_last).
template <class A>
struct RoiPixels {
  struct Quad {
    int64_t top, bottom;
    A weights[4];
  };
  std::vector<Quad> quads;  // samples that read four pixels, where asked for
  std::vector<WeightedPixel<A>> pixels;
  std::vector<size_t> quad_ends, pixel_ends;  // of each bin

  int64_t bins() const { return int64_t(quad_ends.size()); }

  // Bins from `begin` on, until their pixels are many; returns the end.
  int64_t set(const RotatedRoi& r, const RotatedRoiAlignShape& s, int64_t begin, bool as_quads) {
    quads.clear(), pixels.clear(), quad_ends.clear(), pixel_ends.clear();
    const RoiWindow map = window_of_map(r, s);
    const double share = r.inverse_samples();
    int64_t bin = begin;
    for (; bin < s.bins() && quads.size() + pixels.size() < kMany; ++bin) {
      const int64_t ph = bin / s.out_w, pw = bin % s.out_w;
      const auto rows = r.v.samples_between(ph, map.v_low, map.v_high);
      const auto columns = r.u.samples_between(pw, map.u_low, map.u_high);
      for (int64_t iy = rows.begin; iy < rows.end; ++iy)
        for (int64_t ix = columns.begin; ix < columns.end; ++ix) {
          const double u = r.u.position(pw, ix), v = r.v.position(ph, iy);
          const Tap<double> y = bilinear_tap(r.y_at(u, v), s.height), x = bilinear_tap(r.x_at(u, v), s.width);
          add(s, y, x, share, as_quads);
        }
      quad_ends.push_back(quads.size());
      pixel_ends.push_back(pixels.size());
    }
    return bin;
  }

 private:
  static constexpr size_t kMany = 1 << 14;

  void add(const RotatedRoiAlignShape& s, const Tap<double>& y, const Tap<double>& x, double share, bool as_quads) {
    const A weights[4] = {A(y.low_weight * x.low_weight * share), A(y.low_weight * x.high_weight * share),
                          A(y.high_weight * x.low_weight * share), A(y.high_weight * x.high_weight * share)};
    if (as_quads && weights[0] != A(0) && weights[1] != A(0) && weights[2] != A(0) && weights[3] != A(0)) {
      quads.push_back({s.pixel_offset(y.low, x.low),
                       s.pixel_offset(y.high, x.low),
                       {weights[0], weights[1], weights[2], weights[3]}});
      return;
    }
    for (int k = 0; k < 4; ++k)
      if (weights[k] != A(0))
        pixels.push_back({s.pixel_offset(k < 2 ? y.low : y.high, k % 2 ? x.high : x.low), weights[k]});
  }
};

template <class T>
void forward_channels_last(const RotatedRoiAlignShape& s, const T* map, const RoiPixels<Accum<T>>& taps, T* out) {
  for (int64_t bin = 0; bin < taps.bins(); ++bin, out += s.channels) {
    const auto* const first = taps.pixels.data() + (bin ? taps.pixel_ends[size_t(bin - 1)] : 0);
    sum_pixels(map, first, taps.pixels.data() + taps.pixel_ends[size_t(bin)], s.channels, false, out);
  }
}

template <class T>
void forward_plane(const T* plane, const RoiPixels<Accum<T>>& taps, T* out) {
  using A = Accum<T>;
  const auto* quad = taps.quads.data();
  const auto* pixel = taps.pixels.data();
  for (int64_t bin = 0; bin < taps.bins(); ++bin) {
    typename PairOf<A>::quad sums{};
    for (const auto* const end = taps.quads.data() + taps.quad_ends[size_t(bin)]; quad != end; ++quad) {
      typename PairOf<A>::quad weights, values;
      memcpy(&weights, quad->weights, sizeof weights);
      load_quad(plane + quad->top, plane + quad->bottom, values);
      sums += values * weights;
    }
    A sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (const auto* const end = taps.pixels.data() + taps.pixel_ends[size_t(bin)]; pixel != end; ++pixel)
      sum += pixel->weight * to_accum(plane[pixel->offset]);
    out[bin] = from_accum<T>(sum);
  }
}

constexpr int64_t kTile = 16;  // pixels per side; with a vector of channels for each, a tile fits the first cache

// What the regions add to one tile: bins, and for each the pixels of the tile that it reads, each once.
template <class A>
struct TileTaps {
  struct Bin {
    int64_t offset;  // of the bin's gradient, channel 0
    size_t end;      // of its pixels
  };
  struct Pixel {
    int64_t at;
    A weight;
  };
  std::vector<Bin> bins;
  std::vector<Pixel> pixels;

  void set(const RotatedRoiAlignShape& s, const std::vector<RotatedRoi>& rois, int64_t image, int64_t x, int64_t y) {
    bins.clear();
    pixels.clear();
    for (size_t k = 0; k < rois.size(); ++k) {
      const RotatedRoi& r = rois[k];
      if (r.is_zero() || r.image != image) continue;
      const SamplesInTile in(r, x, y, kTile);
      if (in.none()) continue;
      for (int64_t ph = in.rows.begin / r.v.samples; ph * r.v.samples < in.rows.end; ++ph)
        for (int64_t pw = in.columns.begin / r.u.samples; pw * r.u.samples < in.columns.end; ++pw) {
          const size_t before = pixels.size();
          add_bin(s, r, in, ph, pw, x, y);
          if (pixels.size() > before) bins.push_back({s.bin_offset(int64_t(k), ph, pw), pixels.size()});
        }
    }
  }

 private:
  double weight_at[kTile * kTile] = {};  // of the bin at hand; zero between bins

  void add_bin(const RotatedRoiAlignShape& s, const RotatedRoi& r, const SamplesInTile& in, int64_t ph, int64_t pw,
               int64_t tile_x, int64_t tile_y) {
    const int64_t rows = r.v.samples, columns = r.u.samples;
    const size_t before = pixels.size();
    for (int64_t iy = max_of(in.rows.begin - ph * rows, int64_t(0)); iy < min_of(in.rows.end - ph * rows, rows); ++iy)
      for (int64_t ix = max_of(in.columns.begin - pw * columns, int64_t(0));
           ix < min_of(in.columns.end - pw * columns, columns); ++ix) {
        const double u = r.u.position(pw, ix), v = r.v.position(ph, iy);
        const Tap<double> y = bilinear_tap(r.y_at(u, v), s.height), x = bilinear_tap(r.x_at(u, v), s.width);
        const auto add = [&](int64_t at_y, int64_t at_x, double weight) {
          at_y -= tile_y, at_x -= tile_x;
          if (weight == 0 || at_y < 0 || at_y >= kTile || at_x < 0 || at_x >= kTile) return;
          const int64_t at = at_y * kTile + at_x;
          if (weight_at[at] == 0) pixels.push_back({at, A(0)});
          weight_at[at] += weight;
        };
        add(y.low, x.low, y.low_weight * x.low_weight);
        add(y.low, x.high, y.low_weight * x.high_weight);
        add(y.high, x.low, y.high_weight * x.low_weight);
        add(y.high, x.high, y.high_weight * x.high_weight);
      }
    const double share = r.inverse_samples();
    for (size_t k = before; k < pixels.size(); ++k) {
      pixels[k].weight = A(weight_at[pixels[k].at] * share);
      weight_at[pixels[k].at] = 0;
    }
  }
};

}  // namespace

template <class T, class Isa>
void roi_align_rotated(const RotatedRoiAlignShape& s, const T* map, const Accum<T>* rois, T* out,
                       const Cpu<Isa>& exec) {
  const int64_t bins = s.bins(), per_roi = s.channels * bins, pixels = s.height * s.width;
  const bool turned = !s.channels_last && read_much_of_maps<Accum<T>>(s.rois, bins, s.channels, s.batch * pixels);
  const ChannelsLast<T> maps(map, s.batch, s.channels, pixels, turned, exec);
  RotatedRoiAlignShape read = s;
  read.channels_last = s.channels_last || turned;
  exec(s.rois, 1 + 16384 / (per_roi + 1), [&](int64_t begin, int64_t end) {
    RoiPixels<Accum<T>> taps;
    std::vector<T> by_bin(turned ? size_t(per_roi) : 0);
    for (int64_t k = begin; k < end; ++k) {
      const RotatedRoi r = load_rotated_roi(rois + 6 * k, s);
      T* const to = out + k * per_roi;
      if (r.is_zero()) {
        memset(to, 0, size_t(per_roi) * sizeof(T));
        continue;
      }
      const T* const image = maps.at + s.map_offset(r.image);
      for (int64_t bin = 0, next = 0; bin < bins; bin = next) {
        next = taps.set(r, read, bin, !read.channels_last);
        if (read.channels_last)
          forward_channels_last(read, image, taps, (turned ? by_bin.data() : to) + bin * s.channels);
        for (int64_t c = 0; c < s.channels && !read.channels_last; ++c)
          forward_plane(image + c * s.map_channel_stride(), taps, to + c * bins + bin);
      }
      if (turned) transpose(by_bin.data(), s.channels, bins, s.channels, to, bins);
    }
  });
}

template <class T, class Isa>
void roi_align_rotated_backward(const RotatedRoiAlignShape& s, const T* grad, const Accum<T>* rois, T* grad_map,
                                const Cpu<Isa>& exec) {
  using A = Accum<T>;
  std::vector<RotatedRoi> loaded;
  loaded.reserve(size_t(s.rois));
  for (int64_t k = 0; k < s.rois; ++k) loaded.push_back(load_rotated_roi(rois + 6 * k, s));
  const int64_t across = ceil_div(s.width, kTile), per_image = across * ceil_div(s.height, kTile);
  const int64_t total = s.batch * per_image, tasks = min_of(total, 8 * exec.threads);
  // Task t takes tiles t, t + tasks, ...: crowded tiles lie beside each other.
  exec(tasks, 1, [&](int64_t begin, int64_t end) {
    TileTaps<A> taps;
    std::vector<Vec<A>> sums(static_cast<size_t>(kTile * kTile));
    for (int64_t task = begin; task < end; ++task)
      for (int64_t index = task; index < total; index += tasks) {
        const int64_t image = index / per_image, y0 = index % per_image / across * kTile, x0 = index % across * kTile;
        taps.set(s, loaded, image, x0, y0);
        const int64_t rows = min_of(kTile, s.height - y0), columns = min_of(kTile, s.width - x0);
        T* const map = grad_map + s.map_offset(image);
        for (int64_t c = 0; c < s.channels; c += kLanes<A>) {
          const int64_t count = min_of(kLanes<A>, s.channels - c), stride = s.map_channel_stride();
          std::fill(sums.begin(), sums.end(), Vec<A>(A(0)));
          size_t k = 0;
          for (const auto& bin : taps.bins) {
            const Vec<A> g =
                load_strided(grad + bin.offset + c * s.out_channel_stride(), s.out_channel_stride(), count);
            for (; k < bin.end; ++k) {
              Vec<A>& sum = sums[size_t(taps.pixels[k].at)];
              sum = multiply_add(Vec<A>(taps.pixels[k].weight), g, sum);
            }
          }
          for (int64_t y = 0; y < rows; ++y) {
            const Vec<A>* const row = &sums[size_t(y * kTile)];
            T* const to = map + s.pixel_offset(y0 + y, x0) + c * stride;
            store_pixels(row, columns, count, s.pixel_offset(0, 1), stride, to);
          }
        }
      }
  });
}

#define INSTANTIATE(T)                                                                                         \
  template void roi_align_rotated(const RotatedRoiAlignShape&, const T*, const Accum<T>*, T*, const CpuExec&); \
  template void roi_align_rotated_backward(const RotatedRoiAlignShape&, const T*, const Accum<T>*, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
