// Sums over a block and over the partial sums of many, in an order that depends on the shape alone.
#pragma once

#include "cuda.cuh"
#include "reduction.h"

namespace fastvision {

// The sum over all threads of a block of kThreads, for thread 0. Called by the whole block.
template <class V>
__device__ V block_sum(V value) {
  FV_SHARED(values, V[kThreads]);
  values[threadIdx.x] = value;
  __syncthreads();
  for (int step = kThreads / 2; step; step /= 2) {
    if (int(threadIdx.x) < step) values[threadIdx.x] = values[threadIdx.x] + values[threadIdx.x + step];
    __syncthreads();
  }
  value = values[0];
  __syncthreads();
  return value;
}

template <class A>
__global__ void __launch_bounds__(kThreads)
    finish_loss_kernel(Reduction reduction, const LossSum* __restrict__ partials, int64_t n, A* __restrict__ loss,
                       A* __restrict__ counted) {
  LossSum own{};
  for (int64_t i = threadIdx.x; i < n; i += kThreads) own = own + partials[i];
  const LossSum total = block_sum(own);
  if (threadIdx.x != 0) return;
  *loss = A(reduced(reduction, total));
  if (counted) *counted = A(total.counted);
}

}  // namespace fastvision
