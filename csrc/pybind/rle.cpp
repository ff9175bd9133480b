#include "rle.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string_view>

namespace fastvision::host {
namespace {

constexpr int64_t kGrain = 16;  // small masks in a piece of work

// Dense masks in a piece of work: enough to use the scratch memory again, few enough to share the work.
int64_t few(int64_t masks, const HostExec& exec) { return std::max<int64_t>(1, masks / (8 * exec.threads)); }

std::string place(const char* function, const char* argument, int64_t i) {
  return std::string(function) + ": " + argument + "[" + std::to_string(i) + "]: ";
}

std::string type_of(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

// f(i) for each mask; the error of the first mask that has one, with its name.
template <class F>
void for_each_mask(const char* function, const char* argument, int64_t n, const HostExec& exec, F&& f) {
  std::mutex mutex;
  int64_t worst = n;
  std::string error;
  exec(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      try {
        f(i);
      } catch (const std::invalid_argument& e) {
        const std::lock_guard lock(mutex);
        if (i >= worst) continue;
        worst = i;
        error = e.what();
      }
    }
  });
  if (worst < n) throw std::invalid_argument(place(function, argument, worst) + error);
}

int64_t integer(const std::string& at, py::handle value, const char* expected) {
  if (!PyIndex_Check(value.ptr())) throw py::type_error(at + "expected " + expected + ", got " + type_of(value));
  const py::object number = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!number) throw py::error_already_set();
  int overflow = 0;
  const long long result = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow) fail(at, "expected ", expected, " of 64 bits, got ", std::string(py::str(number)));
  return result;
}

// One object of Python; text points into `counts`, which keeps it alive.
struct Source {
  int64_t height, width;
  py::object counts;
  std::string_view text;
  std::vector<int64_t> numbers;
  bool is_text;
};

Source read_object(const std::string& at, py::handle object) {
  if (!py::isinstance<py::dict>(object))
    throw py::type_error(at + "expected a dict with \"size\" and \"counts\", got " + type_of(object));
  const auto dict = py::reinterpret_borrow<py::dict>(object);
  for (const char* key : {"size", "counts"})
    if (!dict.contains(key)) fail(at, "expected a dict with \"size\" and \"counts\", got one without \"", key, "\"");
  const py::object size = dict["size"];
  if (!py::isinstance<py::sequence>(size) && !py::isinstance<py::array>(size))
    throw py::type_error(at + "size: expected [height, width], got " + type_of(size));
  if (py::len(size) != 2) fail(at, "size: expected [height, width], got ", std::to_string(py::len(size)), " numbers");
  Source source{integer(at + "size: ", size[py::int_(0)], "an integer"),
                integer(at + "size: ", size[py::int_(1)], "an integer"),
                dict["counts"],
                {},
                {},
                true};
  const py::object& counts = source.counts;
  if (PyBytes_Check(counts.ptr())) {
    source.text = {PyBytes_AS_STRING(counts.ptr()), size_t(PyBytes_GET_SIZE(counts.ptr()))};
  } else if (PyUnicode_Check(counts.ptr())) {
    Py_ssize_t bytes = 0;
    const char* text = PyUnicode_AsUTF8AndSize(counts.ptr(), &bytes);
    if (!text) {
      PyErr_Clear();
      fail(at, "counts: expected ASCII text, got other characters");
    }
    source.text = {text, size_t(bytes)};
  } else if (py::isinstance<py::list>(counts) || py::isinstance<py::tuple>(counts) ||
             py::isinstance<py::array>(counts)) {
    source.is_text = false;
    for (const py::handle number : counts) source.numbers.push_back(integer(at + "counts: ", number, "integers"));
  } else {
    throw py::type_error(at + "counts: expected bytes, str or a list of integers, got " + type_of(counts));
  }
  return source;
}

void check_same_size(const char* function, const char* argument, const std::vector<RunEnds>& masks,
                     const RunEnds& like) {
  const auto text = [](const RunEnds& m) {
    return "[" + std::to_string(m.height) + ", " + std::to_string(m.width) + "]";
  };
  for (size_t i = 0; i < masks.size(); ++i)
    if (masks[i].height != like.height || masks[i].width != like.width)
      fail(place(function, argument, int64_t(i)), "size: expected ", text(like), " as the first mask, got ",
           text(masks[i]));
}

// f(i, scratch) encodes the i-th mask.
template <class F>
py::list encode_each(int64_t masks, const HostExec& exec, F&& f) {
  std::vector<RunEnds> encoded(masks);
  {
    const py::gil_scoped_release release;
    exec(masks, few(masks, exec), [&](int64_t begin, int64_t end) {
      RleScratch scratch;
      for (int64_t i = begin; i < end; ++i) encoded[i] = f(i, scratch);
    });
  }
  return to_objects(encoded, exec);
}

py::list encode(const py::array& masks, int64_t threads) {
  const char kind = masks.dtype().kind();
  if (masks.itemsize() != 1 || (kind != 'b' && kind != 'u'))
    throw py::type_error("rle_encode: masks: expected dtype bool or uint8, got " + std::string(py::str(masks.dtype())));
  if (masks.ndim() != 3) fail("rle_encode: masks: expected shape (N, H, W), got ", shape_of(masks));
  const int64_t stride = masks.strides(0);
  const MaskView first{static_cast<const uint8_t*>(masks.data()), masks.shape(1), masks.shape(2), masks.strides(1),
                       masks.strides(2)};
  check_mask_size(first.height, first.width);
  return encode_each(masks.shape(0), executor(threads), [&](int64_t i, RleScratch& scratch) {
    MaskView view = first;
    view.data += i * stride;
    return rle_encode(view, scratch);
  });
}

py::list encode_bits(const Array<uint8_t>& masks, int64_t width, int64_t threads) {
  check_mask_size(0, width);
  check_shape("rle_encode_bits", "masks", masks, {-1, -1, row_bytes(width)});
  const int64_t height = masks.shape(1);
  const uint8_t* const data = masks.data();
  check_mask_size(height, width);
  return encode_each(masks.shape(0), executor(threads), [&](int64_t i, RleScratch& scratch) {
    return rle_encode_bits(data + i * height * row_bytes(width), height, width, scratch);
  });
}

void decode(const py::sequence& objects, Array<uint8_t> out, int64_t threads) {
  const HostExec exec = executor(threads);
  const std::vector<RunEnds> masks = parse_masks("rle_decode", "objects", objects, exec);
  check_shape("rle_decode", "out", out, {int64_t(masks.size()), -1, -1});
  if (!masks.empty()) check_same_size("rle_decode", "objects", masks, {out.shape(1), out.shape(2), {}});
  uint8_t* data = out.mutable_data();
  const py::gil_scoped_release release;
  exec(int64_t(masks.size()), few(int64_t(masks.size()), exec), [&](int64_t begin, int64_t end) {
    RleScratch scratch;
    for (int64_t i = begin; i < end; ++i) rle_decode(masks[i], data + i * masks[i].height * masks[i].width, scratch);
  });
}

Array<int64_t> area(const py::sequence& objects, int64_t threads) {
  const std::vector<RunEnds> masks = parse_masks("rle_area", "objects", objects, executor(threads));
  Array<int64_t> areas(masks.size());
  int64_t* out = areas.mutable_data();
  const py::gil_scoped_release release;
  for (const RunEnds& mask : masks) *out++ = rle_area(mask);
  return areas;
}

Array<int64_t> boxes(const py::sequence& objects, int64_t threads) {
  const std::vector<RunEnds> masks = parse_masks("rle_to_boxes", "objects", objects, executor(threads));
  Array<int64_t> boxes({masks.size(), size_t(4)});
  int64_t* out = boxes.mutable_data();
  const py::gil_scoped_release release;
  for (const RunEnds& mask : masks) {
    const PixelBox box = rle_box(mask);
    for (const int64_t v : {box.x, box.y, box.width, box.height}) *out++ = v;
  }
  return boxes;
}

Array<double> iou(const py::sequence& a, const py::sequence& b, const Array<bool>& crowd, int64_t threads) {
  const HostExec exec = executor(threads);
  const std::vector<RunEnds> p = parse_masks("rle_iou", "a", a, exec), q = parse_masks("rle_iou", "b", b, exec);
  check_shape("rle_iou", "crowd", crowd, {int64_t(q.size())});
  Array<double> result({p.size(), q.size()});
  if (p.empty() || q.empty()) return result;
  check_same_size("rle_iou", "a", p, p.front());
  check_same_size("rle_iou", "b", q, p.front());
  double* out = result.mutable_data();
  const bool* is_crowd = crowd.data();
  const py::gil_scoped_release release;
  std::vector<int64_t> areas(q.size());
  for (size_t j = 0; j < q.size(); ++j) areas[j] = rle_area(q[j]);
  exec(int64_t(p.size()), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t area = rle_area(p[i]);
      for (size_t j = 0; j < q.size(); ++j) {
        const int64_t shared = rle_intersection(p[i], q[j]);
        const int64_t whole = is_crowd[j] ? area : area + areas[j] - shared;
        out[i * q.size() + j] = shared > 0 ? double(shared) / double(whole) : 0;
      }
    }
  });
  return result;
}

py::object merge(const py::sequence& objects, bool intersect, int64_t threads) {
  const HostExec exec = executor(threads);
  const std::vector<RunEnds> masks = parse_masks("rle_merge", "objects", objects, exec);
  if (masks.empty()) fail("rle_merge: objects: expected at least one mask, got none");
  check_same_size("rle_merge", "objects", masks, masks.front());
  std::vector<RunEnds> merged;
  {
    const py::gil_scoped_release release;
    merged.push_back(rle_merge(masks, intersect));
  }
  return to_objects(merged, exec)[0];
}

py::object from_polygons(const py::list& polygons, int64_t height, int64_t width) {
  const HostExec exec = executor(1);
  std::vector<Array<double>> arrays;
  for (size_t i = 0; i < polygons.size(); ++i) {
    const std::string at = place("rle_from_polygons", "polygons", int64_t(i));
    if (!py::isinstance<Array<double>>(polygons[i]))
      throw py::type_error(at + "expected a contiguous array of float64, got " + type_of(polygons[i]));
    arrays.push_back(py::reinterpret_borrow<Array<double>>(polygons[i]));
    const Array<double>& polygon = arrays.back();
    if (polygon.ndim() != 1) fail(at, "expected coordinates x, y, x, y, ..., got shape ", shape_of(polygon));
    if (polygon.size() % 2) fail(at, "expected an even number of coordinates, got ", std::to_string(polygon.size()));
  }
  if (arrays.empty()) fail("rle_from_polygons: polygons: expected at least one polygon, got none");
  std::vector<RunEnds> masks(arrays.size()), merged;
  {
    const py::gil_scoped_release release;
    for_each_mask("rle_from_polygons", "polygons", int64_t(arrays.size()), exec, [&](int64_t i) {
      masks[i] = rle_from_polygon(arrays[i].data(), arrays[i].size() / 2, height, width);
    });
    merged.push_back(rle_merge(masks, false));
  }
  return to_objects(merged, exec)[0];
}

}  // namespace

std::vector<RunEnds> parse_masks(const char* function, const char* argument, const py::sequence& objects,
                                 const HostExec& exec) {
  std::vector<Source> sources;
  sources.reserve(objects.size());
  for (size_t i = 0; i < objects.size(); ++i)
    sources.push_back(read_object(place(function, argument, int64_t(i)), py::object(objects[i])));
  std::vector<RunEnds> masks(sources.size());
  const py::gil_scoped_release release;
  for_each_mask(function, argument, int64_t(sources.size()), exec, [&](int64_t i) {
    const Source& s = sources[i];
    masks[i] = s.is_text ? rle_from_string(s.text, s.height, s.width) : rle_from_counts(s.numbers, s.height, s.width);
  });
  return masks;
}

py::list to_objects(const std::vector<RunEnds>& masks, const HostExec& exec) {
  std::vector<std::string> texts(masks.size());
  {
    const py::gil_scoped_release release;
    exec(int64_t(masks.size()), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) texts[i] = rle_to_string(masks[i]);
    });
  }
  py::list objects(masks.size());
  for (size_t i = 0; i < masks.size(); ++i) {
    py::list size(2);
    size[0] = masks[i].height;
    size[1] = masks[i].width;
    py::dict object;
    object["size"] = size;
    object["counts"] = py::bytes(texts[i]);
    objects[i] = object;
  }
  return objects;
}

void bind_rle(py::module_& m) {
  m.def("rle_encode", &encode, py::arg("masks").noconvert(), py::arg("threads"));
  m.def("rle_encode_bits", &encode_bits, py::arg("masks").noconvert(), py::arg("width"), py::arg("threads"));
  m.def("rle_decode", &decode, py::arg("objects"), py::arg("out").noconvert(), py::arg("threads"));
  m.def("rle_area", &area, py::arg("objects"), py::arg("threads"));
  m.def("rle_boxes", &boxes, py::arg("objects"), py::arg("threads"));
  m.def("rle_iou", &iou, py::arg("a"), py::arg("b"), py::arg("crowd").noconvert(), py::arg("threads"));
  m.def("rle_merge", &merge, py::arg("objects"), py::arg("intersect"), py::arg("threads"));
  m.def("rle_from_polygons", &from_polygons, py::arg("polygons"), py::arg("height"), py::arg("width"));
}

}  // namespace fastvision::host
