// Taps (uint8): a thread per output element asks the windows over it, the last one first, whether they point to it; the
// output is written once, without a memset or a scatter. Positions (int64) may point anywhere: the elements of each
// place fight for it by an atomic maximum of their numbers, whose result does not depend on the order, and a second
// launch writes every output once. Bound by the bytes of output, input and index (and of the owners, with int64).
#include "cuda.cuh"
#include "max_unpool2d.h"

namespace fastvision {
namespace {

using Owner = unsigned long long;  // number of an input element + 1, or 0

struct Element {
  int64_t plane, y, x, c;
};
__device__ __forceinline__ Element input_element(const MaxUnpoolShape& s, int64_t i) {
  return {i / s.in_plane(), i / s.in_row() % s.height, i / s.channels % s.width, i % s.channels};
}

// The number of an element in the order of the channels, whatever the layout.
__device__ __forceinline__ void report(const MaxUnpoolShape& s, const Element& e, DeviceErrors* errors) {
  report_bad_row(errors, OpId::max_unpool2d, ((e.plane * s.channels + e.c) * s.height + e.y) * s.width + e.x);
}

// The last input element of the plane whose tap points to this place, or -1.
__device__ int64_t owner_by_taps(const MaxUnpoolShape& s, const uint8_t* plane, int64_t oy, int64_t ox, int64_t c) {
  const int64_t py = oy + s.g.padding_y, px = ox + s.g.padding_x;
  for (int64_t y = min_of(py / s.g.stride_y, s.height - 1); y >= 0 && py - y * s.g.stride_y < s.g.kernel_y; --y)
    for (int64_t x = min_of(px / s.g.stride_x, s.width - 1); x >= 0 && px - x * s.g.stride_x < s.g.kernel_x; --x) {
      const int64_t i = (y * s.width + x) * s.channels + c;
      if (plane[i] == (py - y * s.g.stride_y) * s.g.kernel_x + px - x * s.g.stride_x) return i;
    }
  return -1;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    fill_by_taps_kernel(MaxUnpoolShape s, const T* __restrict__ input, const uint8_t* __restrict__ taps,
                        T* __restrict__ out, DeviceErrors* errors) {
  FV_FOR(o, s.planes * s.out_plane()) {
    const int64_t plane = o / s.out_plane(), c = o % s.channels;
    const int64_t ox = o / s.channels % s.out_w, oy = o / s.channels / s.out_w % s.out_h;
    const int64_t i = owner_by_taps(s, taps + plane * s.in_plane(), oy, ox, c);
    out[o] = i < 0 ? T{} : input[plane * s.in_plane() + i];
  }
  FV_FOR(i, s.planes * s.in_plane()) {
    const Element e = input_element(s, i);
    if (place_of(s, e.y, e.x, taps[i]) < 0) report(s, e, errors);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_by_taps_kernel(MaxUnpoolShape s, const T* __restrict__ grad, const uint8_t* __restrict__ taps,
                          T* __restrict__ grad_input) {
  FV_FOR(i, s.planes * s.in_plane()) {
    const Element e = input_element(s, i);
    const int64_t place = place_of(s, e.y, e.x, taps[i]), own = i - e.plane * s.in_plane();
    const bool owns =
        place >= 0 && owner_by_taps(s, taps + e.plane * s.in_plane(), place / s.out_w, place % s.out_w, e.c) == own;
    grad_input[i] = owns ? grad[e.plane * s.out_plane() + place * s.channels + e.c] : T{};
  }
}

__global__ void __launch_bounds__(kThreads)
    own_kernel(MaxUnpoolShape s, const int64_t* __restrict__ index, Owner* __restrict__ owners, DeviceErrors* errors) {
  FV_FOR(i, s.planes * s.in_plane()) {
    const Element e = input_element(s, i);
    const int64_t place = place_of(s, e.y, e.x, index[i]);
    if (place >= 0) atomicMax(&owners[e.plane * s.out_plane() + place * s.channels + e.c], Owner(i + 1));
    else if (errors) report(s, e, errors);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(MaxUnpoolShape s, const T* __restrict__ input, const Owner* __restrict__ owners, T* __restrict__ out) {
  FV_FOR(o, s.planes * s.out_plane()) out[o] = owners[o] ? input[owners[o] - 1] : T{};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(MaxUnpoolShape s, const T* __restrict__ grad, const int64_t* __restrict__ index,
                  const Owner* __restrict__ owners, T* __restrict__ grad_input) {
  FV_FOR(i, s.planes * s.in_plane()) {
    const Element e = input_element(s, i);
    const int64_t place = place_of(s, e.y, e.x, index[i]), o = e.plane * s.out_plane() + place * s.channels + e.c;
    grad_input[i] = place >= 0 && owners[o] == Owner(i + 1) ? grad[o] : T{};
  }
}

Owner* find_owners(const MaxUnpoolShape& s, const int64_t* index, int64_t* owners, DeviceErrors* errors,
                   const CudaExec& exec) {
  fill_bytes(exec, owners, 0, size_t(s.planes * s.out_plane()) * sizeof(Owner));
  Owner* const own = reinterpret_cast<Owner*>(owners);
  launch(exec, own_kernel, grid_for(s.planes * s.in_plane()), kThreads, 0, s, index, own, errors);
  return own;
}

}  // namespace

template <class T, class Index>
bool max_unpool2d(const MaxUnpoolShape& s, const T* input, const Index* index, int64_t* owners, T* out,
                  const CudaExec& exec) {
  const int64_t items = s.planes * s.out_plane();
  if (items == 0) return true;
  if constexpr (sizeof(Index) == 1) {
    launch(exec, fill_by_taps_kernel<T>, grid_for(items), kThreads, 0, s, input, index, out, exec.errors);
  } else {
    const Owner* own = find_owners(s, index, owners, exec.errors, exec);
    launch(exec, fill_kernel<T>, grid_for(items), kThreads, 0, s, input, own, out);
  }
  return true;
}

template <class T, class Index>
bool max_unpool2d_backward(const MaxUnpoolShape& s, const T* grad, const Index* index, int64_t* owners, T* grad_input,
                           const CudaExec& exec) {
  const int64_t items = s.planes * s.in_plane();
  if (items == 0) return true;
  if constexpr (sizeof(Index) == 1) {
    launch(exec, gather_by_taps_kernel<T>, grid_for(items), kThreads, 0, s, grad, index, grad_input);
  } else {
    const Owner* own = find_owners(s, index, owners, nullptr, exec);
    launch(exec, gather_kernel<T>, grid_for(items), kThreads, 0, s, grad, index, own, grad_input);
  }
  return true;
}

#define INSTANTIATE_INDEX(T, Index)                                                                         \
  template bool max_unpool2d(const MaxUnpoolShape&, const T*, const Index*, int64_t*, T*, const CudaExec&); \
  template bool max_unpool2d_backward(const MaxUnpoolShape&, const T*, const Index*, int64_t*, T*, const CudaExec&);
#define INSTANTIATE(T) INSTANTIATE_INDEX(T, uint8_t) INSTANTIATE_INDEX(T, int64_t)
FV_ALL_FLOATS(INSTANTIATE)
#undef INSTANTIATE
#undef INSTANTIATE_INDEX

}  // namespace fastvision
