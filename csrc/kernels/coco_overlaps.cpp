#include "coco_overlaps.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "box.h"

namespace fastvision {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

void BoxOverlaps::fill(std::span<const int64_t> detections, std::span<const int64_t> targets, double* out) const {
  const auto box_at = [](const double* p) { return Box<double>{p[0], p[1], p[0] + p[2], p[1] + p[3]}; };
  for (const int64_t d : detections) {
    const double* detection = detections_ + 4 * d;
    const Box<double> box = box_at(detection);
    const double box_area = detection[2] * detection[3];
    for (const int64_t t : targets) {
      const double* target = targets_ + 4 * t;
      const Box<double> other = box_at(target);
      const double shared = area(intersection(box, other));
      const double whole = crowd_[t] ? box_area : box_area + target[2] * target[3] - shared;
      *out++ = shared > 0 ? shared / whole : 0;  // NaN is no overlap either
    }
  }
}

MaskOverlaps::MaskOverlaps(std::vector<RunEnds> detections, std::vector<RunEnds> targets,
                           std::span<const uint8_t> crowd, const HostExec& exec)
    : detections_(measure(std::move(detections), exec)), targets_(measure(std::move(targets), exec)), crowd_(crowd) {}

MaskOverlaps::Set MaskOverlaps::measure(std::vector<RunEnds> masks, const HostExec& exec) {
  Set set;
  set.masks = std::move(masks);
  set.boxes.resize(set.masks.size());
  set.areas.resize(set.masks.size());
  exec(int64_t(set.masks.size()), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      set.boxes[i] = rle_box(set.masks[i]);
      set.areas[i] = rle_area(set.masks[i]);
    }
  });
  return set;
}

void MaskOverlaps::fill(std::span<const int64_t> detections, std::span<const int64_t> targets, double* out) const {
  const auto apart = [](int64_t a, int64_t a_size, int64_t b, int64_t b_size) {
    return a + a_size <= b || b + b_size <= a;
  };
  for (const int64_t d : detections) {
    const RunEnds& mask = detections_.masks[d];
    const PixelBox& box = detections_.boxes[d];
    for (const int64_t t : targets) {
      const RunEnds& other = targets_.masks[t];
      const PixelBox& other_box = targets_.boxes[t];
      if (mask.height != other.height || mask.width != other.width)
        throw std::invalid_argument("expected masks of one size in an image, got different ones");
      *out = 0;
      if (!apart(box.x, box.width, other_box.x, other_box.width) &&
          !apart(box.y, box.height, other_box.y, other_box.height)) {
        const int64_t shared = rle_intersection(mask, other);
        const int64_t whole = detections_.areas[d] + (crowd_[t] ? 0 : targets_.areas[t] - shared);
        if (shared > 0) *out = double(shared) / double(whole);
      }
      ++out;
    }
  }
}

void KeypointOverlaps::fill(std::span<const int64_t> detections, std::span<const int64_t> targets, double* out) const {
  for (const int64_t d : detections)
    for (const int64_t t : targets) *out++ = similarity(d, t);
}

// Distances count for the keypoints that are visible in the target; if none is, the distances to its box, grown by its
// own size on every side.
double KeypointOverlaps::similarity(int64_t detection, int64_t target) const {
  const int64_t n = int64_t(k_.sigmas.size());
  const double* d = k_.detections + detection * n * 3;
  const double* t = k_.targets + target * n * 3;
  const double* box = k_.target_boxes + target * 4;
  int64_t visible = 0;
  for (int64_t k = 0; k < n; ++k) visible += t[3 * k + 2] > 0;
  double sum = 0;
  for (int64_t k = 0; k < n; ++k) {
    if (visible > 0 && !(t[3 * k + 2] > 0)) continue;
    double offset[2];
    for (const int axis : {0, 1}) {
      const double at = d[3 * k + axis], low = box[axis] - box[2 + axis], high = box[axis] + box[2 + axis] * 2;
      offset[axis] = visible > 0 ? at - t[3 * k + axis] : std::max(0., low - at) + std::max(0., at - high);
    }
    const double spread = 2 * k_.sigmas[k];
    const double distance = offset[0] * offset[0] + offset[1] * offset[1];
    sum += std::exp(-(distance / (spread * spread) / (k_.target_areas[target] + kEpsilon) / 2));
  }
  return sum / double(visible > 0 ? visible : n);
}

}  // namespace fastvision
