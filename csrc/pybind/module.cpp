// fastvision._host: host algorithms on NumPy arrays. Every call releases the GIL while it works.
#include "arguments.h"

PYBIND11_MODULE(_host, m) {
  m.doc() = "Host algorithms of fastvision on NumPy arrays.";
  fastvision::host::bind_rle(m);
  fastvision::host::bind_metrics(m);
}
