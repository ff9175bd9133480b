// The COCO evaluation (Lin et al., ECCV 2014): detections are matched with ground truth per image and category at
// several overlaps, and the matches summed up to precision as a function of recall. Numbers equal those of the
// reference implementation in Python; matches are kept by index, so that an annotation's id means nothing.
#pragma once

#include <cstdint>
#include <span>

#include "coco_overlaps.h"
#include "host_exec.h"

namespace fastvision {

// Entry i of every array belongs to one object. Images and categories count from 0.
struct CocoDetections {
  std::span<const int64_t> images, categories;
  std::span<const double> scores, areas;
};
struct CocoTargets {
  std::span<const int64_t> images, categories;
  std::span<const double> areas;
  std::span<const uint8_t> crowd;    // matches any number of detections
  std::span<const uint8_t> ignored;  // neither missed nor found
};

struct CocoSettings {
  int64_t images, categories;
  std::span<const double> iou_thresholds;     // at most 32
  std::span<const double> recall_thresholds;  // ascending
  std::span<const double> area_ranges;        // pairs: lowest and highest area
  std::span<const int64_t> max_detections;    // per image and category, ascending
};

// Arrays with the last index fastest, -1 where a category has no ground truth: precision and scores
// (thresholds, recalls, categories, areas, max_detections), recall the same without recalls.
struct CocoCurves {
  std::span<double> precision, scores, recall;
};

void coco_evaluate(const CocoDetections&, const CocoTargets&, const CocoSettings&, const Overlaps&, const HostExec&,
                   const CocoCurves&);

}  // namespace fastvision
