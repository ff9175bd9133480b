// A thread per anchor, all levels in one launch; bound by the 16 bytes written for each.
#include "cuda.cuh"
#include "grid_anchors.h"

namespace fastvision {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    anchors_kernel(const __grid_constant__ AnchorLevels levels, T* __restrict__ out) {
  FV_FOR(i, levels.total()) store_box(out + 4 * i, anchor_at<T>(levels, i));
}

}  // namespace

template <class T>
void grid_anchors(const AnchorLevels& levels, T* out, const CudaExec& exec) {
  if (levels.total() > 0) launch(exec, anchors_kernel<T>, grid_for(levels.total()), kThreads, 0, levels, out);
}

#define INSTANTIATE(T) template void grid_anchors(const AnchorLevels&, T*, const CudaExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
