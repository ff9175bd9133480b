// Run-length objects of Python, {"size": [height, width], "counts": bytes, str or a list}, as C++ masks and back.
#pragma once

#include <vector>

#include "../kernels/rle.h"
#include "arguments.h"

namespace fastvision::host {

// Called with the GIL, which is released while the counts are read. An error names the function and the object.
std::vector<RunEnds> parse_masks(const char* function, const char* argument, const py::sequence& objects,
                                 const HostExec&);
py::list to_objects(const std::vector<RunEnds>&, const HostExec&);

}  // namespace fastvision::host
