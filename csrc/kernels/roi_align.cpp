// The samples of a bin are separable: a bin is the sum over a few rows and columns of pixels, each pixel once, with the
// product of two weights. channels_last: vectors of channels, all pixels of a bin at a time. NCHW: the rows of a bin are
// added along x first, then the columns. Backward is the transpose; threads own channels, so sums have a fixed order.
#include "roi_align.h"

#include <vector>

#include "simd.h"

namespace fastvision {
namespace {

template <class A>
constexpr int64_t kLanes = Vec<A>::kLanes;

// The pixels along one axis that each bin of a region reads, with the weights of all its samples added up.
template <class A>
struct AxisTaps {
  struct Pixel {
    int64_t at;
    A weight;
  };
  std::vector<Pixel> pixels;
  std::vector<size_t> ends;  // of each bin in pixels
  int64_t low, high;         // the range of pixels of all bins

  void set(const SampleAxis<A>& axis, A share) {
    pixels.clear();
    ends.clear();
    low = axis.size, high = -1;
    for (int64_t p = 0; p < axis.bins; ++p) {
      const size_t begin = pixels.size();
      const auto range = axis.samples_inside(p);
      for (int64_t i = range.begin; i < range.end; ++i) {
        const Tap<A> tap = bilinear_tap(axis.position(p, i), axis.size);
        if (tap.low_weight != A(0)) add(begin, tap.low, tap.low_weight * share);
        if (tap.high_weight != A(0)) add(begin, tap.high, tap.high_weight * share);
      }
      for (size_t k = begin; k < pixels.size(); ++k)
        low = min_of(low, pixels[k].at), high = max_of(high, pixels[k].at);
      ends.push_back(pixels.size());
    }
  }
  const Pixel* begin_of(int64_t p) const { return pixels.data() + (p ? ends[p - 1] : 0); }
  const Pixel* end_of(int64_t p) const { return pixels.data() + ends[p]; }

 private:
  void add(size_t begin, int64_t at, A weight) {  // samples ascend, so the pixel is one of the last two or new
    for (size_t k = pixels.size(); k > begin && k + 2 > pixels.size(); --k)
      if (pixels[k - 1].at == at) {
        pixels[k - 1].weight += weight;
        return;
      }
    pixels.push_back({at, weight});
  }
};

template <class A>
struct RoiTaps {
  AxisTaps<A> y, x;
  void set(const Roi<A>& r) {
    y.set(r.y, A(1) / max_of(A(r.y.samples), A(1)));
    x.set(r.x, A(1) / max_of(A(r.x.samples), A(1)));
  }
};

// The pixels of one bin as offsets into a channels_last map.
template <class A>
struct BinPixels {
  std::vector<int64_t> offsets;
  std::vector<A> weights;

  void set(const RoiTaps<A>& taps, int64_t ph, int64_t pw, int64_t width, int64_t channels) {
    offsets.clear();
    weights.clear();
    for (auto y = taps.y.begin_of(ph); y != taps.y.end_of(ph); ++y)
      for (auto x = taps.x.begin_of(pw); x != taps.x.end_of(pw); ++x) {
        offsets.push_back((y->at * width + x->at) * channels);
        weights.push_back(y->weight * x->weight);
      }
  }
};

constexpr int kBlock = 4;  // vectors of channels that are added at a time

template <class T>
void forward_channels_last(const RoiAlignShape& s, const T* map, int64_t width, const RoiTaps<Accum<T>>& taps,
                           BinPixels<Accum<T>>& bin, T* out) {
  using A = Accum<T>;
  for (int64_t ph = 0; ph < s.out_h; ++ph)
    for (int64_t pw = 0; pw < s.out_w; ++pw, out += s.channels) {
      bin.set(taps, ph, pw, width, s.channels);
      const size_t n = bin.offsets.size();
      int64_t c = 0;
      for (; c + kBlock * kLanes<A> <= s.channels; c += kBlock * kLanes<A>) {
        Vec<A> sum[kBlock] = {A(0), A(0), A(0), A(0)};
        for (size_t k = 0; k < n; ++k) {
          const T* pixel = map + bin.offsets[k] + c;
          for (int v = 0; v < kBlock; ++v)
            sum[v] = multiply_add(Vec<A>(bin.weights[k]), load_vector(pixel + v * kLanes<A>), sum[v]);
        }
        for (int v = 0; v < kBlock; ++v) store_vector(out + c + v * kLanes<A>, sum[v]);
      }
      for (; c < s.channels; c += kLanes<A>) {
        const int64_t count = min_of(kLanes<A>, s.channels - c);
        Vec<A> sum(A(0));
        for (size_t k = 0; k < n; ++k)
          sum = multiply_add(Vec<A>(bin.weights[k]), load_vector(map + bin.offsets[k] + c, count), sum);
        store_vector(out + c, sum, count);
      }
    }
}

// row[x - low] = sum of weight * plane[y][x] over the rows of a bin.
template <class T>
void add_rows(const T* plane, int64_t width, const typename AxisTaps<Accum<T>>::Pixel* begin,
              const typename AxisTaps<Accum<T>>::Pixel* end, int64_t low, int64_t high, Accum<T>* row) {
  using A = Accum<T>;
  for (int64_t x = low; x <= high; x += kLanes<A>) {
    const int64_t count = min_of(kLanes<A>, high + 1 - x);
    Vec<A> sum(A(0));
    for (auto y = begin; y != end; ++y) {
      const T* p = plane + y->at * width + x;
      const bool whole = y->at * width + x + kLanes<A> <= (y->at + 1) * width;
      sum = multiply_add(Vec<A>(y->weight), whole ? load_vector(p) : load_vector(p, count), sum);
    }
    sum.store(row + (x - low));
  }
}

template <class T>
void forward_planes(const RoiAlignShape& s, int l, const T* map, const RoiTaps<Accum<T>>& taps,
                    std::vector<Accum<T>>& row, int64_t first, int64_t last, T* out) {
  using A = Accum<T>;
  const int64_t low = taps.x.low, high = taps.x.high, width = s.level[l].width;
  row.resize(size_t(max_of<int64_t>(high - low + 1, 0) + kLanes<A>));
  for (int64_t c = first; c < last; ++c) {
    const T* plane = map + c * s.map_channel_stride(l);
    T* to = out + c * s.bins();
    for (int64_t ph = 0; ph < s.out_h; ++ph) {
      add_rows(plane, width, taps.y.begin_of(ph), taps.y.end_of(ph), low, high, row.data());
      for (int64_t pw = 0; pw < s.out_w; ++pw) {
        A sum(0);
        for (auto x = taps.x.begin_of(pw); x != taps.x.end_of(pw); ++x)
          sum = multiply_add(x->weight, row[size_t(x->at - low)], sum);
        *to++ = from_accum<T>(sum);
      }
    }
  }
}

template <class T>
void backward_channels_last(const RoiAlignShape& s, const T* grad, const RoiTaps<Accum<T>>& taps,
                            BinPixels<Accum<T>>& bin, int64_t width, int64_t stride, int64_t channels,
                            Accum<T>* map) {
  using A = Accum<T>;
  for (int64_t ph = 0; ph < s.out_h; ++ph)
    for (int64_t pw = 0; pw < s.out_w; ++pw, grad += s.channels) {
      bin.set(taps, ph, pw, width, stride);
      int64_t c = 0;
      for (; c + kLanes<A> <= channels; c += kLanes<A>) {
        const Vec<A> g = load_vector(grad + c);
        for (size_t k = 0; k < bin.offsets.size(); ++k) {
          A* pixel = map + bin.offsets[k] + c;
          multiply_add(Vec<A>(bin.weights[k]), g, Vec<A>::load(pixel)).store(pixel);
        }
      }
      for (; c < channels; ++c)
        for (size_t k = 0; k < bin.offsets.size(); ++k) {
          A* pixel = map + bin.offsets[k] + c;
          *pixel = multiply_add(bin.weights[k], to_accum(grad[c]), *pixel);
        }
    }
}

template <class T>
void backward_plane(const RoiAlignShape& s, const T* grad, const RoiTaps<Accum<T>>& taps,
                    std::vector<Accum<T>>& row, int64_t width, Accum<T>* plane) {
  using A = Accum<T>;
  const int64_t low = taps.x.low, high = taps.x.high;
  for (int64_t ph = 0; ph < s.out_h; ++ph) {
    row.assign(size_t(max_of<int64_t>(high - low + 1, 0)), A(0));
    for (int64_t pw = 0; pw < s.out_w; ++pw) {
      const A g = to_accum(*grad++);
      for (auto x = taps.x.begin_of(pw); x != taps.x.end_of(pw); ++x)
        row[size_t(x->at - low)] = multiply_add(x->weight, g, row[size_t(x->at - low)]);
    }
    for (auto y = taps.y.begin_of(ph); y != taps.y.end_of(ph); ++y) {
      A* to = plane + y->at * width + low;
      int64_t x = 0;
      for (; x + kLanes<A> <= high - low + 1; x += kLanes<A>)
        multiply_add(Vec<A>(y->weight), Vec<A>::load(&row[size_t(x)]), Vec<A>::load(to + x)).store(to + x);
      for (; x <= high - low; ++x) to[x] = multiply_add(y->weight, row[size_t(x)], to[x]);
    }
  }
}

}  // namespace

template <class T, class Isa>
void roi_align(const RoiAlignShape& s, const LevelPointers<const T>& maps, const Accum<T>* rois,
               const int64_t* level_of, T* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const int64_t per_roi = s.channels * s.bins();
  exec(s.rois, 1 + 16384 / (per_roi + 1), [&](int64_t begin, int64_t end) {
    RoiTaps<A> taps;
    BinPixels<A> bin;
    std::vector<A> row;
    for (int64_t r = begin; r < end; ++r) {
      const Roi<A> roi = load_roi(rois, level_of, s, r);
      T* to = out + r * per_roi;
      if (roi.is_zero()) {
        memset(to, 0, size_t(per_roi) * sizeof(T));
        continue;
      }
      taps.set(roi);
      const T* map = maps.at[roi.level] + s.map_offset(roi.level, roi.image);
      if (s.channels_last) forward_channels_last(s, map, s.level[roi.level].width, taps, bin, to);
      else forward_planes(s, roi.level, map, taps, row, 0, s.channels, to);
    }
  });
}

template <class T, class Isa>
void roi_align_backward(const RoiAlignShape& s, const T* grad, const Accum<T>* rois, const int64_t* level_of,
                        const LevelPointers<T>& grad_maps, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  // A task owns some channels of one image in every level: wide enough to fill cache lines, enough tasks for threads.
  const int64_t chunk = s.channels_last ? 64 : 8, chunks = ceil_div(s.channels, chunk);
  exec(s.batch * chunks, 1, [&](int64_t begin, int64_t end) {
    RoiTaps<A> taps;
    BinPixels<A> bin;
    std::vector<A> row;
    std::vector<A> sums[kMaxLevels];  // 16-bit gradients are added in float32
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / chunks, first = task % chunks * chunk;
      const int64_t channels = min_of(chunk, s.channels - first);
      for (int l = 0; l < s.levels; ++l) {
        const int64_t pixels = s.level[l].height * s.level[l].width;
        T* map = grad_maps.at[l] + s.map_offset(l, image) + first * s.map_channel_stride(l);
        if constexpr (sizeof(T) != sizeof(A)) sums[l].assign(size_t(pixels * channels), A(0));
        else if (s.channels_last)
          for (int64_t p = 0; p < pixels; ++p) memset(map + p * s.channels, 0, size_t(channels) * sizeof(T));
        else memset(map, 0, size_t(pixels * channels) * sizeof(T));
      }
      for (int64_t r = 0; r < s.rois; ++r) {
        if (rois[5 * r] != A(image)) continue;
        const Roi<A> roi = load_roi(rois, level_of, s, r);
        if (roi.is_zero()) continue;
        taps.set(roi);
        const int l = roi.level;
        const int64_t pixels = s.level[l].height * s.level[l].width;
        const T* g = grad + r * s.channels * s.bins() + first * s.out_channel_stride();
        A* map;
        if constexpr (sizeof(T) != sizeof(A)) map = sums[l].data();
        else map = grad_maps.at[l] + s.map_offset(l, image) + first * s.map_channel_stride(l);
        if (s.channels_last)
          backward_channels_last(s, g, taps, bin, s.level[l].width, sizeof(T) != sizeof(A) ? channels : s.channels,
                                 channels, map);
        else
          for (int64_t c = 0; c < channels; ++c)
            backward_plane(s, g + c * s.bins(), taps, row, s.level[l].width, map + c * pixels);
      }
      if constexpr (sizeof(T) != sizeof(A))
        for (int l = 0; l < s.levels; ++l) {
          const int64_t pixels = s.level[l].height * s.level[l].width;
          T* map = grad_maps.at[l] + s.map_offset(l, image) + first * s.map_channel_stride(l);
          const int64_t runs = s.channels_last ? pixels : 1, length = int64_t(sums[l].size()) / max_of<int64_t>(runs, 1);
          for (int64_t run = 0; run < runs; ++run)
            for (int64_t i = 0; i < length; ++i)
              map[run * s.channels + i] = from_accum<T>(sums[l][size_t(run * length + i)]);
        }
    }
  });
}

#define INSTANTIATE(T)                                                                                              \
  template void roi_align(const RoiAlignShape&, const LevelPointers<const T>&, const Accum<T>*, const int64_t*, T*, \
                          const CpuExec&);                                                                          \
  template void roi_align_backward(const RoiAlignShape&, const T*, const Accum<T>*, const int64_t*,                 \
                                   const LevelPointers<T>&, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
