// CUDA: gather and scatter with one channel per group, where they need not go pixel by pixel: channels_last by packs of
// channels, NCHW by planes in shared memory.
#pragma once

#include "convolution.h"

namespace fastvision {

// As the functions of convolution.h; false where they are not for this shape and have done nothing.
template <class T>
bool depthwise_gather(const ConvolutionShape&, const T* large, const T* weight, const T* bias, T* small,
                      const CudaExec&);
template <class T>
bool depthwise_scatter(const ConvolutionShape&, const T* small, const T* weight, const T* bias, T* large,
                       const CudaExec&);

}  // namespace fastvision
