// Samples of 96 pixels by 256 channels at a time are made for one tap and multiplied with the weights of that tap while
// they are in the cache: sums of 6 pixels by 4 vectors of channels of the result stay in registers. Where to read and
// how much of each corner is worked out once per pixel, tap and group of offsets. Gradient by the input: a thread owns
// 64 channels of an image, so that what it adds to a pixel comes in one order; sums over channels for the gradients by
// offsets and mask are kept by slice of channels and added up at the end. Gradient by the weight: a thread owns 64
// channels of a tap.
#include "deform_conv2d.h"

#include <algorithm>
#include <vector>

#include "deform_samples.h"
#include "panels.h"

namespace fastvision {
namespace {

constexpr int64_t kTile = 96, kWideSlice = 256, kSlice = kDeformSlice;

// `elements` numbers in the type of the sums: themselves, or a copy.
template <class T>
const Accum<T>* widened(const T* from, int64_t elements, std::vector<Accum<T>>& copy) {
  if constexpr (sizeof(T) == sizeof(Accum<T>)) {
    return from;
  } else {
    copy.resize(size_t(elements));
    copy_numbers(from, elements, copy.data());
    return copy.data();
  }
}

// Rows of `from` as rows of a map (to_row apart), or as its columns (to_row apart, neighbours in memory).
template <class T>
void store_rows(const Accum<T>* from, int64_t from_stride, int64_t rows, int64_t columns, bool turn, T* to,
                int64_t to_row) {
  using A = Accum<T>;
  if (turn) return transpose(from, from_stride, rows, columns, to, to_row);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; c += kLanes<A>) {
      const int64_t n = min_of(kLanes<A>, columns - c);
      const Vec<A> v = load_vector(from + r * from_stride + c, n);
      store_vector(to + r * to_row + c, v, n);
    }
}

// The weights in panels of channels of the result: (tap, group and panel, channel of the group, channel of the panel).
template <class T>
struct ForwardWeights {
  using A = Accum<T>;
  int64_t panels, channels;  // of a group
  std::vector<A> packed;

  ForwardWeights(const DeformShape& s, const T* weight, const CpuExec& exec)
      : panels(ceil_div(s.group_out(), kPanel<A>)),
        channels(s.group_in()),
        packed(size_t(s.taps() * s.groups * panels * channels * kPanel<A>)) {
    constexpr int64_t kChannels = 32;
    exec(s.groups * panels, 1 + 65536 / (channels * s.taps() * kPanel<A> + 1), [&](int64_t begin, int64_t end) {
      std::vector<A> rows(size_t(kChannels * s.taps() * kPanel<A>));
      for (int64_t k = begin; k < end; ++k) {
        const int64_t first = k % panels * kPanel<A>, width = min_of(kPanel<A>, s.group_out() - first);
        const T* from = weight + (k / panels * s.group_out() + first) * channels * s.taps();
        for (int64_t c = 0; c < channels; c += kChannels) {
          const int64_t count = min_of(kChannels, channels - c);
          transpose(from + c * s.taps(), channels * s.taps(), width, count * s.taps(), rows.data(), kPanel<A>);
          for (int64_t i = 0; i < count * s.taps(); ++i)
            memcpy(packed.data() + ((i % s.taps() * s.groups * panels + k) * channels + c + i / s.taps()) * kPanel<A>,
                   rows.data() + i * kPanel<A>, sizeof(A) * kPanel<A>);
        }
      }
    });
  }
  // Panels are numbered as they lie: (tap, group, panel).
  const A* panel(int64_t number, int64_t channel) const {
    return packed.data() + (number * channels + channel) * kPanel<A>;
  }
};

// The weights in panels of channels of the input: (slice, tap, panel, channel of the result, channel of the panel).
template <class T>
struct BackwardWeights {
  using A = Accum<T>;
  static constexpr int64_t kPanels = kSlice / kPanel<A>;
  int64_t taps, depth;
  std::vector<A> packed;

  BackwardWeights(const DeformShape& s, const ChannelSlices& slices, const T* weight, const CpuExec& exec)
      : taps(s.taps()), depth(s.group_out()), packed(size_t(slices.count * taps * kPanels * depth * kPanel<A>)) {
    exec(slices.count, 1 + 65536 / (taps * depth * kSlice + 1), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const ChannelSlice slice = slices.at(s, k);
        const int64_t channel = slice.first - slice.group * s.group_in();
        for (int64_t d = 0; d < depth; ++d)
          for (int64_t c = 0; c < slice.count; c += kPanel<A>)
            transpose(weight + ((slice.group * depth + d) * s.group_in() + channel + c) * taps, taps,
                      min_of(kPanel<A>, slice.count - c), taps, at(k, 0, c) + d * kPanel<A>,
                      kPanels * depth * kPanel<A>);
      }
    });
  }
  A* at(int64_t slice, int64_t tap, int64_t channel) {
    return packed.data() + ((slice * taps + tap) * kPanels + channel / kPanel<A>)*depth * kPanel<A>;
  }
};

}  // namespace

template <class T, class Isa>
void deform_conv2d(const DeformShape& s, const T* input, const Accum<T>* offset, const Accum<T>* mask, const T* weight,
                   const T* bias, T* out, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const ForwardWeights<T> weights(s, weight, exec);
  const ChannelSlices slices = ChannelSlices::by_offsets(s, kWideSlice);
  const int64_t tiles = ceil_div(s.pixels(), kTile), taps = s.taps();
  const int64_t group_width = ceil_div(s.group_out(), kLanes<A>) * kLanes<A>, width = s.groups * group_width;
  exec(s.batch * tiles, 1, [&](int64_t begin, int64_t end) {
    std::vector<Corners<A>> corners(size_t(taps * kTile));
    std::vector<A> columns(size_t(kTile * kWideSlice)), sums(size_t(kTile * width));
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / tiles, first = k % tiles * kTile, count = min_of(kTile, s.pixels() - first);
      for (int64_t p = 0; p < count; ++p)
        for (int64_t g = 0; g < s.groups; ++g)
          for (int64_t d = 0; d < group_width; ++d)
            sums[size_t(p * width + g * group_width + d)] =
                bias && d < s.group_out() ? to_accum(bias[g * s.group_out() + d]) : A(0);
      const T* map = input + image * s.in_pixels() * s.in_channels;
      int64_t offset_group = -1;
      for (int64_t i = 0; i < slices.count; ++i) {
        const ChannelSlice slice = slices.at(s, i);
        if (slice.offset_group != offset_group) {
          offset_group = slice.offset_group;
          const int64_t group = image * s.offset_groups + offset_group;
          for (int64_t tap = 0; tap < taps; ++tap)
            for (int64_t p = 0; p < count; ++p)
              corners[size_t(tap * kTile + p)] = corners_of(s, deform_sample(s, offset, group, tap, first + p),
                                                            deform_mask(s, mask, group, tap, first + p));
        }
        for (int64_t tap = 0; tap < taps; ++tap) {
          for (int64_t p = 0; p < count; ++p)
            interpolate(corners[size_t(tap * kTile + p)], map + slice.first, s.in_channels, slice.count,
                        columns.data() + p * slice.count);
          const int64_t end_channel = slice.first + slice.count;
          for (int64_t g = slice.group; g * s.group_in() < end_channel; ++g) {
            const int64_t channel = max_of(slice.first, g * s.group_in());
            const int64_t depth = min_of(end_channel, (g + 1) * s.group_in()) - channel;
            for (int64_t panel = 0; panel < weights.panels; ++panel) {
              const int64_t number = (tap * s.groups + g) * weights.panels + panel, from = channel - g * s.group_in();
              const bool is_last = number + 1 == taps * s.groups * weights.panels;
              add_product<A>(count, min_of(kPanel<A>, s.group_out() - panel * kPanel<A>), depth,
                             {columns.data() + channel - slice.first, slice.count, 1}, weights.panel(number, from),
                             kPanel<A>, sums.data() + g * group_width + panel * kPanel<A>, width,
                             is_last ? nullptr : weights.panel(number + 1, from));
            }
          }
        }
      }
      T* const to = out + image * s.pixels() * s.out_channels;
      for (int64_t g = 0; g < s.groups; ++g) {
        const int64_t channel = g * s.group_out();
        store_rows(sums.data() + g * group_width, width, count, s.group_out(), !s.channels_last,
                   s.channels_last ? to + first * s.out_channels + channel : to + channel * s.pixels() + first,
                   s.channels_last ? s.out_channels : s.pixels());
      }
    }
  });
}

template <class T, class Isa>
void deform_conv2d_input_gradient(const DeformShape& s, const T* grad, const T* input, const Accum<T>* offset,
                                  const Accum<T>* mask, const T* weight, Accum<T>* scratch, T* by_input,
                                  Accum<T>* by_offset, Accum<T>* by_mask, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const ChannelSlices slices = ChannelSlices::of(s, kSlice);
  BackwardWeights<T> weights(s, slices, weight, exec);
  const int64_t taps = s.taps(), parts = slices.per_offset_group(s);
  exec(s.batch * slices.count, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> sums, products(size_t(kTile * kSlice)), copy;
    for (int64_t k = begin; k < end; ++k) {
      const int64_t image = k / slices.count, index = k % slices.count;
      const ChannelSlice slice = slices.at(s, index);
      const int64_t group = image * s.offset_groups + slice.offset_group;
      sums.assign(size_t(s.in_pixels() * slice.count), A(0));
      const SampleGradient<T> gradient{s, input + image * s.in_pixels() * s.in_channels + slice.first, sums.data(),
                                       slice.count};
      A* const partial = scratch + index % parts * 3 * s.samples();
      for (int64_t first = 0; first < s.pixels(); first += kTile) {
        const int64_t count = min_of(kTile, s.pixels() - first);
        const A* rows = widened(grad + (image * s.pixels() + first) * s.out_channels, count * s.out_channels, copy);
        for (int64_t tap = 0; tap < taps; ++tap) {
          std::fill(products.begin(), products.end(), A(0));
          for (int64_t c = 0; c < slice.count; c += kPanel<A>)
            add_product<A>(count, min_of(kPanel<A>, slice.count - c), s.group_out(),
                           {rows + slice.group * s.group_out(), s.out_channels, 1}, weights.at(index, tap, c),
                           kPanel<A>, products.data() + c, kSlice,
                           c + kPanel<A> < slice.count ? weights.at(index, tap, c + kPanel<A>)
                                                       : weights.at(index, (tap + 1) % taps, 0));
          for (int64_t p = 0; p < count; ++p) {
            const DeformSample<A> sample = deform_sample(s, offset, group, tap, first + p);
            A* const to = partial + (group * taps + tap) * 3 * s.pixels() + first + p;
            if (!sample.inside) {
              for (int i = 0; i < 3; ++i) to[i * s.pixels()] = A(0);
              continue;
            }
            const A factor = deform_mask(s, mask, group, tap, first + p);
            const auto found = gradient.add(sample, factor, products.data() + p * kSlice);
            A value(0);
            for (int i = 0; i < 4; ++i)
              if (sample.weight(i) != A(0)) value = multiply_add(sample.weight(i), found.corner[i], value);
            to[0] = factor * sample.slope_down(found.corner);
            to[s.pixels()] = factor * sample.slope_right(found.corner);
            to[2 * s.pixels()] = value;
          }
        }
      }
      T* const to = by_input + image * s.in_pixels() * s.in_channels;
      store_rows(sums.data(), slice.count, s.in_pixels(), slice.count, !s.channels_last,
                 s.channels_last ? to + slice.first : to + slice.first * s.in_pixels(),
                 s.channels_last ? s.in_channels : s.in_pixels());
    }
  });
  const int64_t planes = s.batch * s.offset_groups * taps;
  exec(planes * 3, 1 + 65536 / (s.pixels() * parts + 1), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      A* const to = k % 3 < 2 ? by_offset + (k / 3 * 2 + k % 3) * s.pixels() : by_mask + k / 3 * s.pixels();
      if (k % 3 == 2 && !by_mask) continue;
      for (int64_t p = 0; p < s.pixels(); ++p) {
        A sum(0);
        for (int64_t part = 0; part < parts; ++part) sum += scratch[part * 3 * s.samples() + k * s.pixels() + p];
        to[p] = sum;
      }
    }
  });
}

template <class T, class Isa>
void deform_conv2d_weight_gradient(const DeformShape& s, const T* grad, const T* input, const Accum<T>* offset,
                                   const Accum<T>* mask, T* by_weight, const Cpu<Isa>& exec) {
  using A = Accum<T>;
  const ChannelSlices slices = ChannelSlices::of(s, kSlice);
  const int64_t taps = s.taps(), rows = s.group_out();
  exec(slices.count * taps, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> columns(size_t(kTile * kSlice)), sums(size_t(rows * kSlice)), copy;
    for (int64_t k = begin; k < end; ++k) {
      const ChannelSlice slice = slices.at(s, k / taps);
      const int64_t tap = k % taps;
      std::fill(sums.begin(), sums.end(), A(0));
      for (int64_t image = 0; image < s.batch; ++image) {
        const int64_t group = image * s.offset_groups + slice.offset_group;
        const T* map = input + image * s.in_pixels() * s.in_channels + slice.first;
        for (int64_t first = 0; first < s.pixels(); first += kTile) {
          const int64_t count = min_of(kTile, s.pixels() - first);
          for (int64_t p = 0; p < count; ++p)
            interpolate(corners_of(s, deform_sample(s, offset, group, tap, first + p),
                                   deform_mask(s, mask, group, tap, first + p)),
                        map, s.in_channels, slice.count, columns.data() + p * kSlice);
          const A* of_grad =
              widened(grad + (image * s.pixels() + first) * s.out_channels, count * s.out_channels, copy);
          for (int64_t c = 0; c < slice.count; c += kPanel<A>)
            add_product<A>(rows, min_of(kPanel<A>, slice.count - c), count,
                           {of_grad + slice.group * rows, 1, s.out_channels}, columns.data() + c, kSlice,
                           sums.data() + c, kSlice);
        }
      }
      const int64_t channel = slice.first - slice.group * s.group_in();
      for (int64_t d = 0; d < rows; ++d)
        for (int64_t c = 0; c < slice.count; ++c)
          by_weight[((slice.group * rows + d) * s.group_in() + channel + c) * taps + tap] =
              from_accum<T>(sums[size_t(d * kSlice + c)]);
    }
  });
}

#define INSTANTIATE(T)                                                                                                 \
  template void deform_conv2d(const DeformShape&, const T*, const Accum<T>*, const Accum<T>*, const T*, const T*, T*,  \
                              const CpuExec&);                                                                         \
  template void deform_conv2d_input_gradient(const DeformShape&, const T*, const T*, const Accum<T>*, const Accum<T>*, \
                                             const T*, Accum<T>*, T*, Accum<T>*, Accum<T>*, const CpuExec&);           \
  template void deform_conv2d_weight_gradient(const DeformShape&, const T*, const T*, const Accum<T>*,                 \
                                              const Accum<T>*, T*, const CpuExec&);
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
