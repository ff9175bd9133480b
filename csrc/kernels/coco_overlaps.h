// How much detections cover ground truth, by the rules of the COCO evaluation (Lin et al., ECCV 2014).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "host_exec.h"
#include "rle.h"

namespace fastvision {

// How much detections cover targets of the same image and category.
class Overlaps {
 public:
  virtual ~Overlaps() = default;
  // out: (detections, targets)
  virtual void fill(std::span<const int64_t> detections, std::span<const int64_t> targets, double* out) const = 0;
};

// Intersection over union of boxes (x, y, width, height); over the detection's area if the target is a crowd. Targets
// are finite; a detection that is not covers nothing.
class BoxOverlaps : public Overlaps {
 public:
  BoxOverlaps(const double* detections, const double* targets, std::span<const uint8_t> crowd)
      : detections_(detections), targets_(targets), crowd_(crowd) {}
  void fill(std::span<const int64_t>, std::span<const int64_t>, double*) const override;

 private:
  const double *detections_, *targets_;
  std::span<const uint8_t> crowd_;
};

// The same of masks. Masks of one image must have one size.
class MaskOverlaps : public Overlaps {
 public:
  MaskOverlaps(std::vector<RunEnds> detections, std::vector<RunEnds> targets, std::span<const uint8_t> crowd,
               const HostExec&);
  void fill(std::span<const int64_t>, std::span<const int64_t>, double*) const override;

 private:
  struct Set {
    std::vector<RunEnds> masks;
    std::vector<PixelBox> boxes;
    std::vector<int64_t> areas;
  };
  static Set measure(std::vector<RunEnds>, const HostExec&);

  Set detections_, targets_;
  std::span<const uint8_t> crowd_;
};

// Object keypoint similarity. Keypoints: (objects, sigmas.size(), 3) of x, y, visibility.
struct CocoKeypoints {
  const double *detections, *targets;
  const double* target_boxes;  // x, y, width, height
  std::span<const double> target_areas, sigmas;
};
class KeypointOverlaps : public Overlaps {
 public:
  explicit KeypointOverlaps(const CocoKeypoints& keypoints) : k_(keypoints) {}
  void fill(std::span<const int64_t>, std::span<const int64_t>, double*) const override;

 private:
  double similarity(int64_t detection, int64_t target) const;
  CocoKeypoints k_;
};

}  // namespace fastvision
