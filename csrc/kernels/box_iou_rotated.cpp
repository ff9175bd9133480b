// A vector of boxes meets one box at a time. Vectors in which no box is near enough to meet it cost a dozen operations;
// the others about 15 per pair.
#include "box_iou_rotated.h"

#include "rotated_vector.h"

namespace fastvision {
namespace {

// About 20 us of work per task.
template <class T>
int64_t grain_of(int64_t pairs_per_item) {
  return 1 + 512 * kLanes<T> / (pairs_per_item + 1);
}

template <class T>
FV_HD void add_scaled(RotatedGradient<Vec<T>>& sum, const RotatedGradient<Vec<T>>& d, Vec<T> g) {
  const Vec<T> zero(T(0));
  const auto scaled = [&](Vec<T> v) { return select(g == zero, zero, v * g); };
  sum.x = sum.x + scaled(d.x), sum.y = sum.y + scaled(d.y);
  sum.w = sum.w + scaled(d.w), sum.h = sum.h + scaled(d.h), sum.angle = sum.angle + scaled(d.angle);
}
template <class T>
RotatedGradient<Vec<T>> no_gradient() {
  return {T(0), T(0), T(0), T(0), T(0)};
}
template <class T>
void store_lanes(T* to, const RotatedGradient<Vec<T>>& d, AngleUnit unit, int64_t n) {
  for (int i = 0; i < n; ++i) store_gradient<T>(to + 5 * i, {d.x[i], d.y[i], d.w[i], d.h[i], d.angle[i]}, unit);
}

}  // namespace

template <class T, class Isa>
void prepare_rotated_boxes(int64_t n, const T* boxes, AngleUnit unit, RotatedBox<T>* out, const Cpu<Isa>& exec) {
  exec(n, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = load_rotated_box(boxes + 5 * i, unit);
  });
}

template <class T, class Isa>
void box_iou_rotated(const RotatedIouShape& s, const RotatedBox<T>* boxes1, const RotatedBox<T>* boxes2, T* out,
                     const Cpu<Isa>& exec) {
  if (s.aligned) {
    exec(s.batch * s.rows, grain_of<T>(1), [&](int64_t begin, int64_t end) {
      constexpr int64_t kPiece = 1024;  // stays in the first-level cache
      for (; begin < end; begin += kPiece) {
        const int64_t count = min_of(kPiece, end - begin);
        const RotatedArrays<T> a(boxes1 + begin, count), b(boxes2 + begin, count);
        for (int64_t i = 0; i < count; i += kLanes<T>)
          store_vector(out + begin + i, iou_of<T>(ManyBoxes<T>{a, i}, ManyBoxes<T>{b, i}),
                       min_of(kLanes<T>, count - i));
      }
    });
    return;
  }
  for (int64_t n = 0; n < s.batch; ++n, boxes1 += s.rows, boxes2 += s.cols, out += s.rows * s.cols) {
    const RotatedArrays<T> b(boxes2, s.cols);
    exec(s.rows, grain_of<T>(s.cols), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const OneBox<T> a{boxes1[i]};
        for (int64_t j = 0; j < s.cols; j += kLanes<T>)
          store_vector(out + i * s.cols + j, iou_of<T>(a, ManyBoxes<T>{b, j}), min_of(kLanes<T>, s.cols - j));
      }
    });
  }
}

template <class T, class Isa>
void box_iou_rotated_backward(const RotatedIouShape& s, AngleUnit unit, const T* grad, const RotatedBox<T>* boxes1,
                              const RotatedBox<T>* boxes2, T* grad1, T* grad2, const Cpu<Isa>& exec) {
  for (int64_t n = 0; n < s.batch; ++n) {
    const RotatedArrays<T> a(boxes1 + n * s.rows, s.rows), b(boxes2 + n * s.cols, s.cols);
    T* const to1 = grad1 + 5 * n * s.rows;
    T* const to2 = grad2 + 5 * n * s.cols;
    const T* const g = grad + n * s.rows * (s.aligned ? 1 : s.cols);
    // For each vector of own boxes the sum over the other set; grad of own box i and other box j at g[at(i, j)].
    const auto own = [&](const RotatedArrays<T>& own_boxes, int64_t count, const RotatedArrays<T>& others,
                         int64_t other_count, int64_t own_stride, int64_t other_stride, T* to) {
      exec(ceil_div(count, kLanes<T>), grain_of<T>(kLanes<T> * (s.aligned ? 1 : other_count)),
           [&](int64_t begin, int64_t end) {
             for (int64_t i = begin * kLanes<T>; i < min_of(end * kLanes<T>, count); i += kLanes<T>) {
               const int64_t lanes = min_of(kLanes<T>, count - i);
               auto sum = no_gradient<T>();
               if (s.aligned) {
                 add_scaled<T>(sum, iou_gradient_of<T>(ManyBoxes<T>{others, i}, ManyBoxes<T>{own_boxes, i}),
                               load_vector(g + i, lanes));
               }
               for (int64_t j = 0; j < other_count && !s.aligned; ++j)
                 add_scaled<T>(sum, iou_gradient_of<T>(OneBox<T>{others.at(j)}, ManyBoxes<T>{own_boxes, i}),
                               load_strided(g + i * own_stride + j * other_stride, own_stride, lanes));
               store_lanes(to + 5 * i, sum, unit, lanes);
             }
           });
    };
    own(a, s.rows, b, s.cols, s.cols, 1, to1);
    own(b, s.cols, a, s.rows, 1, s.cols, to2);
  }
}

#define INSTANTIATE(T)                                                                                      \
  template void prepare_rotated_boxes(int64_t, const T*, AngleUnit, RotatedBox<T>*, const CpuExec&);        \
  template void box_iou_rotated(const RotatedIouShape&, const RotatedBox<T>*, const RotatedBox<T>*, T*,     \
                                const CpuExec&);                                                            \
  template void box_iou_rotated_backward(const RotatedIouShape&, AngleUnit, const T*, const RotatedBox<T>*, \
                                         const RotatedBox<T>*, T*, T*, const CpuExec&);
FV_FLOATS(INSTANTIATE)
#undef INSTANTIATE

}  // namespace fastvision
