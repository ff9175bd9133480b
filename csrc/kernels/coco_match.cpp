#include "coco_match.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace fastvision {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

// Highest score first, NaN last.
bool ranks_before(double a, double b) { return a > b || (std::isnan(b) && !std::isnan(a)); }

// The detections and the targets of one image and category: ranges of the sorted indices.
struct Group {
  int64_t category, detection_begin, detection_end, target_begin, target_end;
};

// Indices in order of `key` in [0, keys), otherwise in the order given.
std::vector<int64_t> sort_by(std::span<const int64_t> key, int64_t keys, const std::vector<int64_t>& order) {
  std::vector<int64_t> starts(keys + 1, 0), sorted(order.size());
  for (const int64_t i : order) ++starts[key[i] + 1];
  for (int64_t k = 0; k < keys; ++k) starts[k + 1] += starts[k];
  for (const int64_t i : order) sorted[starts[key[i]]++] = i;
  return sorted;
}
std::vector<int64_t> sort_by_category_and_image(std::span<const int64_t> images, std::span<const int64_t> categories,
                                                const CocoSettings& settings) {
  std::vector<int64_t> order(images.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = int64_t(i);
  return sort_by(categories, settings.categories, sort_by(images, settings.images, order));
}

class Evaluation {
 public:
  Evaluation(const CocoDetections& detections, const CocoTargets& targets, const CocoSettings& settings,
             const Overlaps& overlaps)
      : dt_(detections),
        gt_(targets),
        settings_(settings),
        overlaps_(overlaps),
        detections_(sort_by_category_and_image(dt_.images, dt_.categories, settings)),
        targets_(sort_by_category_and_image(gt_.images, gt_.categories, settings)),
        ranks_(detections_.size()),
        outcomes_(detections_.size() * areas()) {
    find_groups();
  }

  void run(const HostExec& exec, const CocoCurves& curves) {
    exec(int64_t(groups_.size()), 256, [&](int64_t begin, int64_t end) {
      MatchScratch scratch;
      for (int64_t g = begin; g < end; ++g) match(groups_[g], scratch);
    });
    exec(settings_.categories, 1, [&](int64_t begin, int64_t end) {
      for (int64_t category = begin; category < end; ++category) accumulate(category, curves);
    });
  }

 private:
  // What became of a detection, one bit per threshold.
  struct Outcome {
    uint32_t matched, ignored;
  };
  struct MatchScratch {
    std::vector<double> overlaps, best;
    std::vector<int64_t> candidates, candidate_ends;
    std::vector<uint8_t> ignored, taken;
  };

  int64_t areas() const { return int64_t(settings_.area_ranges.size()) / 2; }
  bool outside(double area, int64_t range) const {
    return area < settings_.area_ranges[2 * range] || area > settings_.area_ranges[2 * range + 1];
  }
  // An overlap of exactly 1 is enough for the threshold 1.
  double bar(size_t threshold) const { return std::min(settings_.iou_thresholds[threshold], 1 - 1e-10); }
  uint32_t all_thresholds() const { return uint32_t((uint64_t(1) << settings_.iou_thresholds.size()) - 1); }

  void find_groups() {
    const int64_t n = int64_t(detections_.size()), m = int64_t(targets_.size());
    category_groups_.assign(settings_.categories + 1, 0);
    for (int64_t d = 0, t = 0; d < n || t < m;) {
      const auto key = [&](const auto& of, int64_t i) { return of.categories[i] * settings_.images + of.images[i]; };
      const int64_t last = std::numeric_limits<int64_t>::max();
      const int64_t next = std::min(d < n ? key(dt_, detections_[d]) : last, t < m ? key(gt_, targets_[t]) : last);
      Group group{next / settings_.images, d, d, t, t};
      while (d < n && key(dt_, detections_[d]) == next) ++d;
      while (t < m && key(gt_, targets_[t]) == next) ++t;
      group.detection_end = d;
      group.target_end = t;
      groups_.push_back(group);
      category_groups_[group.category + 1] = int64_t(groups_.size());
    }
    for (int64_t c = 0; c < settings_.categories; ++c)
      category_groups_[c + 1] = std::max(category_groups_[c + 1], category_groups_[c]);
  }

  void match(const Group& group, MatchScratch& s) {
    const auto first = detections_.begin() + group.detection_begin, last = detections_.begin() + group.detection_end;
    const auto by_score = [&](int64_t a, int64_t b) { return ranks_before(dt_.scores[a], dt_.scores[b]); };
    if (!std::is_sorted(first, last, by_score)) std::stable_sort(first, last, by_score);
    for (int64_t i = group.detection_begin; i < group.detection_end; ++i)
      ranks_[i] = int32_t(std::min<int64_t>(i - group.detection_begin, std::numeric_limits<int32_t>::max()));

    const int64_t n = std::min(last - first, settings_.max_detections.back());
    const std::span<const int64_t> dets(detections_.data() + group.detection_begin, n);
    const std::span<const int64_t> gts(targets_.data() + group.target_begin, group.target_end - group.target_begin);
    find_candidates(dets, gts, s);
    s.ignored.resize(gts.size());
    for (int64_t area = 0; area < areas(); ++area) {
      Outcome* outcomes = outcomes_.data() + area * int64_t(detections_.size()) + group.detection_begin;
      std::fill_n(outcomes, n, Outcome{0, 0});
      if (!s.candidates.empty()) {
        for (size_t g = 0; g < gts.size(); ++g) s.ignored[g] = gt_.ignored[gts[g]] || outside(gt_.areas[gts[g]], area);
        for (size_t t = 0; t < settings_.iou_thresholds.size(); ++t) match_at(t, n, gts, s, outcomes);
      }
      for (int64_t d = 0; d < n; ++d)
        if (outside(dt_.areas[dets[d]], area)) outcomes[d].ignored |= all_thresholds() & ~outcomes[d].matched;
    }
  }

  // For each detection the targets that it could match at the lowest threshold: few, usually none.
  void find_candidates(std::span<const int64_t> dets, std::span<const int64_t> gts, MatchScratch& s) {
    double lowest = 1;
    for (size_t t = 0; t < settings_.iou_thresholds.size(); ++t) lowest = std::min(lowest, bar(t));
    s.overlaps.resize(dets.size() * gts.size());
    s.candidates.clear();
    s.candidate_ends.assign(dets.size(), 0);
    s.best.assign(dets.size(), 0);
    if (gts.empty()) return;
    overlaps_.fill(dets, gts, s.overlaps.data());
    for (size_t d = 0; d < dets.size(); ++d) {
      for (size_t g = 0; g < gts.size(); ++g) {
        const double overlap = s.overlaps[d * gts.size() + g];
        if (!(overlap >= lowest)) continue;
        s.candidates.push_back(int64_t(g));
        s.best[d] = std::max(s.best[d], overlap);
      }
      s.candidate_ends[d] = int64_t(s.candidates.size());
    }
  }

  // Detections by falling score take the target that they cover best, of equals the last; one that is ignored only if
  // no other is left.
  void match_at(size_t threshold, int64_t n, std::span<const int64_t> gts, MatchScratch& s, Outcome* outcomes) const {
    s.taken.assign(gts.size(), 0);
    const uint32_t bit = uint32_t(1) << threshold;
    for (int64_t d = 0; d < n; ++d) {
      if (s.best[d] < bar(threshold)) continue;
      int64_t match = -1;
      for (const uint8_t ignored : {0, 1}) {
        double best = bar(threshold);
        for (int64_t c = d > 0 ? s.candidate_ends[d - 1] : 0; c < s.candidate_ends[d]; ++c) {
          const int64_t g = s.candidates[c];
          const double overlap = s.overlaps[d * int64_t(gts.size()) + g];
          if (s.ignored[g] != ignored || (s.taken[g] && !gt_.crowd[gts[g]]) || overlap < best) continue;
          best = overlap;
          match = g;
        }
        if (match >= 0) break;
      }
      if (match < 0) continue;
      s.taken[match] = 1;
      outcomes[d].matched |= bit;
      if (s.ignored[match]) outcomes[d].ignored |= bit;
    }
  }

  // True positives at one threshold: the precision and the score at each.
  struct Hits {
    int64_t missed = 0;  // detections that other thresholds count otherwise but that are false positives at this one
    std::vector<double> precision, scores;
  };

  void accumulate(int64_t category, const CocoCurves& curves) const {
    const int64_t begin = category_groups_[category], end = category_groups_[category + 1];
    if (begin == end) return;
    struct Ranked {
      double score;
      int64_t at;
    };
    std::vector<Ranked> order;
    for (int64_t i = groups_[begin].detection_begin; i < groups_[end - 1].detection_end; ++i)
      if (ranks_[i] < settings_.max_detections.back()) order.push_back({dt_.scores[detections_[i]], i});
    std::stable_sort(order.begin(), order.end(),
                     [](const Ranked& a, const Ranked& b) { return ranks_before(a.score, b.score); });

    std::vector<Hits> hits(settings_.iou_thresholds.size());
    for (int64_t area = 0; area < areas(); ++area) {
      int64_t positives = 0;
      for (int64_t i = groups_[begin].target_begin; i < groups_[end - 1].target_end; ++i)
        positives += !gt_.ignored[targets_[i]] && !outside(gt_.areas[targets_[i]], area);
      if (positives == 0) continue;
      for (size_t limit = 0; limit < settings_.max_detections.size(); ++limit) {
        for (Hits& h : hits) {
          h.missed = 0;
          h.precision.clear();
          h.scores.clear();
        }
        double first_score = 0;
        int64_t false_positives = 0, seen = 0;  // false positives at every threshold
        for (const Ranked& detection : order) {
          if (ranks_[detection.at] >= settings_.max_detections[limit]) continue;
          if (seen++ == 0) first_score = detection.score;
          const Outcome& outcome = outcomes_[area * int64_t(detections_.size()) + detection.at];
          if ((outcome.matched | outcome.ignored) == 0) {
            ++false_positives;
            continue;
          }
          if (outcome.ignored == all_thresholds()) continue;
          for (size_t t = 0; t < hits.size(); ++t) {
            Hits& h = hits[t];
            if (outcome.ignored >> t & 1) continue;
            if (!(outcome.matched >> t & 1)) {
              ++h.missed;
              continue;
            }
            const double found = double(h.precision.size() + 1);
            h.precision.push_back(found / (double(false_positives + h.missed) + found + kEpsilon));
            h.scores.push_back(detection.score);
          }
        }
        for (size_t t = 0; t < hits.size(); ++t)
          write_curve(hits[t], positives, first_score, {t, size_t(category), size_t(area), limit}, curves);
      }
    }
  }

  struct Cell {
    size_t threshold, category, area, limit;
  };

  void write_curve(Hits& hits, int64_t positives, double first_score, const Cell& cell,
                   const CocoCurves& curves) const {
    const size_t categories = settings_.categories, recalls = settings_.recall_thresholds.size();
    const size_t limits = settings_.max_detections.size(), found = hits.precision.size();
    const size_t inner = (cell.category * areas() + cell.area) * limits + cell.limit;
    const size_t pitch = categories * areas() * limits;
    curves.recall[cell.threshold * pitch + inner] = double(found) / double(positives);
    // The best precision at this recall or any higher one.
    for (size_t k = found; k-- > 1;) hits.precision[k - 1] = std::max(hits.precision[k - 1], hits.precision[k]);
    size_t k = 0;  // the least number of true positives that reaches the recall
    for (size_t r = 0; r < recalls; ++r) {
      while (k <= found && double(k) / double(positives) < settings_.recall_thresholds[r]) ++k;
      const size_t at = (cell.threshold * recalls + r) * pitch + inner;
      const bool reached = k <= found;
      curves.precision[at] = reached && found > 0 ? hits.precision[k > 0 ? k - 1 : 0] : 0;
      curves.scores[at] = !reached ? 0 : k > 0 ? hits.scores[k - 1] : first_score;
    }
  }

  const CocoDetections& dt_;
  const CocoTargets& gt_;
  const CocoSettings& settings_;
  const Overlaps& overlaps_;
  std::vector<int64_t> detections_, targets_;  // sorted by category, image and, once matched, score
  std::vector<int32_t> ranks_;                 // of detections_ within image and category
  std::vector<Outcome> outcomes_;              // (areas, detections_)
  std::vector<Group> groups_;
  std::vector<int64_t> category_groups_;  // where the groups of a category begin
};

}  // namespace

void coco_evaluate(const CocoDetections& detections, const CocoTargets& targets, const CocoSettings& settings,
                   const Overlaps& overlaps, const HostExec& exec, const CocoCurves& curves) {
  std::fill(curves.precision.begin(), curves.precision.end(), -1.);
  std::fill(curves.scores.begin(), curves.scores.end(), -1.);
  std::fill(curves.recall.begin(), curves.recall.end(), -1.);
  Evaluation(detections, targets, settings, overlaps).run(exec, curves);
}

}  // namespace fastvision
