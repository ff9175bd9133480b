// fastvision._host: host algorithms on NumPy arrays. Every call releases the GIL while it works.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_host, m) { m.doc() = "Host algorithms of fastvision on NumPy arrays."; }
