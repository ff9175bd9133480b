#include <algorithm>
#include <cmath>

#include "../kernels/coco_match.h"
#include "rle.h"

namespace fastvision::host {
namespace {

constexpr const char* kName = "coco_evaluate";

struct Detections {
  Array<int64_t> images, categories;
  Array<double> scores, areas;

  Detections(Array<int64_t> image, Array<int64_t> category, Array<double> score, Array<double> area)
      : images(std::move(image)), categories(std::move(category)), scores(std::move(score)), areas(std::move(area)) {
    check_shape(kName, "detections.images", images, {-1});
    check_shape(kName, "detections.categories", categories, {images.size()});
    check_shape(kName, "detections.scores", scores, {images.size()});
    check_shape(kName, "detections.areas", areas, {images.size()});
  }
  CocoDetections view() const { return {values(images), values(categories), values(scores), values(areas)}; }
};

struct Targets {
  Array<int64_t> images, categories;
  Array<double> areas;
  Array<bool> crowd, ignored;

  Targets(Array<int64_t> image, Array<int64_t> category, Array<double> area, Array<bool> is_crowd,
          Array<bool> is_ignored)
      : images(std::move(image)),
        categories(std::move(category)),
        areas(std::move(area)),
        crowd(std::move(is_crowd)),
        ignored(std::move(is_ignored)) {
    check_shape(kName, "targets.images", images, {-1});
    check_shape(kName, "targets.categories", categories, {images.size()});
    check_shape(kName, "targets.areas", areas, {images.size()});
    check_shape(kName, "targets.crowd", crowd, {images.size()});
    check_shape(kName, "targets.ignored", ignored, {images.size()});
  }
  CocoTargets view() const { return {values(images), values(categories), values(areas), bytes(crowd), bytes(ignored)}; }
  static std::span<const uint8_t> bytes(const Array<bool>& a) {
    return {static_cast<const uint8_t*>(static_cast<const void*>(a.data())), size_t(a.size())};
  }
};

struct Settings {
  int64_t images, categories;
  Array<double> iou_thresholds, recall_thresholds, area_ranges;
  Array<int64_t> max_detections;

  Settings(int64_t image_count, int64_t category_count, Array<double> ious, Array<double> recalls, Array<double> areas,
           Array<int64_t> limits)
      : images(image_count),
        categories(category_count),
        iou_thresholds(std::move(ious)),
        recall_thresholds(std::move(recalls)),
        area_ranges(std::move(areas)),
        max_detections(std::move(limits)) {
    check_shape(kName, "iou_thresholds", iou_thresholds, {-1});
    check_shape(kName, "recall_thresholds", recall_thresholds, {-1});
    check_shape(kName, "area_ranges", area_ranges, {-1, 2});
    check_shape(kName, "max_detections", max_detections, {-1});
    const auto in = [](int64_t n, int64_t low, int64_t high) { return n >= low && n <= high; };
    const int64_t most = int64_t(1) << 32;
    if (!in(images, 0, most) || !in(categories, 0, most) || (images > 0 && categories > (int64_t(1) << 62) / images))
      fail(kName, ": images, categories: expected at most 2**32 of each and 2**62 pairs, got ", std::to_string(images),
           " and ", std::to_string(categories));
    if (!in(iou_thresholds.size(), 1, 32)) fail(kName, ": iou_thresholds: expected 1 to 32 numbers");
    const auto limit = values(max_detections);
    if (limit.empty() || limit[0] < 0 || !std::is_sorted(limit.begin(), limit.end()))
      fail(kName, ": max_detections: expected ascending integers >= 0, at least one");
    const auto recall = values(recall_thresholds);
    if (!std::is_sorted(recall.begin(), recall.end())) fail(kName, ": recall_thresholds: expected ascending numbers");
  }
  CocoSettings view() const {
    return {images,
            categories,
            values(iou_thresholds),
            values(recall_thresholds),
            values(area_ranges),
            values(max_detections)};
  }
};

void check_indices(const char* argument, std::span<const int64_t> indices, int64_t end) {
  for (size_t i = 0; i < indices.size(); ++i)
    if (indices[i] < 0 || indices[i] >= end)
      fail(kName, ": ", argument, "[", std::to_string(i), "]: expected an index in [0, ", std::to_string(end),
           "), got ", std::to_string(indices[i]));
}

std::span<double> writable(Array<double>& a) { return {a.mutable_data(), size_t(a.size())}; }

// precision, recall, scores
py::tuple evaluate(const Detections& detections, const Targets& targets, const Settings& settings,
                   const Overlaps& overlaps, const HostExec& exec) {
  const CocoDetections dt = detections.view();
  const CocoTargets gt = targets.view();
  const CocoSettings s = settings.view();
  check_indices("detections.images", dt.images, s.images);
  check_indices("detections.categories", dt.categories, s.categories);
  check_indices("targets.images", gt.images, s.images);
  check_indices("targets.categories", gt.categories, s.categories);
  const size_t t = s.iou_thresholds.size(), r = s.recall_thresholds.size(), k = s.categories;
  const size_t a = s.area_ranges.size() / 2, m = s.max_detections.size();
  Array<double> precision({t, r, k, a, m}), scores({t, r, k, a, m}), recall({t, k, a, m});
  const CocoCurves curves{writable(precision), writable(scores), writable(recall)};
  {
    const py::gil_scoped_release release;
    coco_evaluate(dt, gt, s, overlaps, exec, curves);
  }
  return py::make_tuple(precision, recall, scores);
}

py::tuple evaluate_boxes(const Detections& detections, const Targets& targets, const Settings& settings,
                         const Array<double>& detection_boxes, const Array<double>& target_boxes, int64_t threads) {
  check_shape(kName, "detection_boxes", detection_boxes, {detections.images.size(), 4});
  check_shape(kName, "target_boxes", target_boxes, {targets.images.size(), 4});
  const BoxOverlaps overlaps(detection_boxes.data(), target_boxes.data(), Targets::bytes(targets.crowd));
  return evaluate(detections, targets, settings, overlaps, executor(threads));
}

py::tuple evaluate_masks(const Detections& detections, const Targets& targets, const Settings& settings,
                         const py::sequence& detection_masks, const py::sequence& target_masks, int64_t threads) {
  const HostExec exec = executor(threads);
  std::vector<RunEnds> dt = parse_masks(kName, "detection_masks", detection_masks, exec);
  std::vector<RunEnds> gt = parse_masks(kName, "target_masks", target_masks, exec);
  if (int64_t(dt.size()) != detections.images.size() || int64_t(gt.size()) != targets.images.size())
    fail(kName, ": masks: expected one for each detection and each target, got ", std::to_string(dt.size()), " and ",
         std::to_string(gt.size()));
  const MaskOverlaps overlaps(std::move(dt), std::move(gt), Targets::bytes(targets.crowd), exec);
  return evaluate(detections, targets, settings, overlaps, exec);
}

py::tuple evaluate_keypoints(const Detections& detections, const Targets& targets, const Settings& settings,
                             const Array<double>& detection_keypoints, const Array<double>& target_keypoints,
                             const Array<double>& target_boxes, const Array<double>& sigmas, int64_t threads) {
  check_shape(kName, "sigmas", sigmas, {-1});
  check_shape(kName, "detection_keypoints", detection_keypoints, {detections.images.size(), sigmas.size(), 3});
  check_shape(kName, "target_keypoints", target_keypoints, {targets.images.size(), sigmas.size(), 3});
  check_shape(kName, "target_boxes", target_boxes, {targets.images.size(), 4});
  const KeypointOverlaps overlaps({detection_keypoints.data(), target_keypoints.data(), target_boxes.data(),
                                   values(targets.areas), values(sigmas)});
  return evaluate(detections, targets, settings, overlaps, executor(threads));
}

}  // namespace

void bind_metrics(py::module_& m) {
  const auto exact = [](const char* name) { return py::arg(name).noconvert(); };
  py::class_<Detections>(m, "CocoDetections")
      .def(py::init<Array<int64_t>, Array<int64_t>, Array<double>, Array<double>>(), exact("images"),
           exact("categories"), exact("scores"), exact("areas"));
  py::class_<Targets>(m, "CocoTargets")
      .def(py::init<Array<int64_t>, Array<int64_t>, Array<double>, Array<bool>, Array<bool>>(), exact("images"),
           exact("categories"), exact("areas"), exact("crowd"), exact("ignored"));
  py::class_<Settings>(m, "CocoSettings")
      .def(py::init<int64_t, int64_t, Array<double>, Array<double>, Array<double>, Array<int64_t>>(), py::arg("images"),
           py::arg("categories"), exact("iou_thresholds"), exact("recall_thresholds"), exact("area_ranges"),
           exact("max_detections"));
  m.def("coco_evaluate_boxes", &evaluate_boxes, py::arg("detections"), py::arg("targets"), py::arg("settings"),
        exact("detection_boxes"), exact("target_boxes"), py::arg("threads"));
  m.def("coco_evaluate_masks", &evaluate_masks, py::arg("detections"), py::arg("targets"), py::arg("settings"),
        py::arg("detection_masks"), py::arg("target_masks"), py::arg("threads"));
  m.def("coco_evaluate_keypoints", &evaluate_keypoints, py::arg("detections"), py::arg("targets"), py::arg("settings"),
        exact("detection_keypoints"), exact("target_keypoints"), exact("target_boxes"), exact("sigmas"),
        py::arg("threads"));
}

}  // namespace fastvision::host
