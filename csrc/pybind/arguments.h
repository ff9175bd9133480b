// What the bindings of _host share: arrays checked and borrowed, and the threads to work on.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <span>
#include <string>

#include "../kernels/host_exec.h"

namespace fastvision::host {

namespace py = pybind11;

// Arrays are taken as they are: another dtype or memory order is a TypeError of pybind11's, never a silent copy. Bind
// such arguments with py::arg(...).noconvert().
template <class T>
using Array = py::array_t<T, py::array::c_style>;

HostExec executor(int64_t threads);

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::string text;
  ((text += parts), ...);
  throw py::value_error(text);
}

inline std::string shape_of(const py::array& a) {
  std::string text = "(";
  for (py::ssize_t i = 0; i < a.ndim(); ++i) text.append(i ? ", " : "").append(std::to_string(a.shape(i)));
  return text.append(a.ndim() == 1 ? ",)" : ")");
}

// -1 stands for any size.
template <class T>
void check_shape(const char* function, const char* argument, const Array<T>& a, std::initializer_list<int64_t> shape) {
  bool ok = a.ndim() == py::ssize_t(shape.size());
  std::string expected;
  for (py::ssize_t i = 0; const int64_t size : shape) {
    ok = ok && (size < 0 || a.shape(i) == size);
    expected.append(i++ ? ", " : "").append(size < 0 ? "N" : std::to_string(size));
  }
  if (!ok) fail(function, ": ", argument, ": expected shape (", expected, "), got ", shape_of(a));
}

template <class T>
std::span<const T> values(const Array<T>& a) {
  return {a.data(), size_t(a.size())};
}

void bind_rle(py::module_&);
void bind_metrics(py::module_&);

}  // namespace fastvision::host
