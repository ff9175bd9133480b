// What the bindings of region ops share.
#pragma once

#include "binding.h"

namespace fastvision::binding {
inline namespace FV_BACKEND {

// Whether a 4-dimensional tensor's channels are its innermost dimension, or nearer to that than its columns.
inline bool is_channels_last(const Tensor& t) { return t.size(1) > 1 && t.stride(1) < t.stride(3); }
inline MemoryFormat format_of(bool channels_last) {
  return channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// Regions (K, columns), of the dtype that goes with the features.
inline void check_rois(const Check& check, const Tensor& features, const char* features_name, const Tensor& rois,
                       const char* rois_name = "boxes", int64_t columns = 5) {
  check.all_floats(features_name, features);
  const ScalarType wanted = accumulated_type(features);
  check.that(rois.scalar_type() == wanted, rois_name, ": expected dtype ", dtype_name(wanted), " for features of ",
             dtype_name(features.scalar_type()), ", got ", dtype_name(rois.scalar_type()));
  check.same_device(rois_name, rois, features_name, features);
  check.shape(rois.dim() == 2 && rois.size(1) == columns, rois_name, rois, columns == 5 ? "(K, 5)" : "(K, 6)");
}

// Column 0 of regions (K, columns): integers in [0, images).
inline void check_image_indices(const Check& check, const char* argument, const Tensor& regions, int64_t images) {
  if (!validates_indices()) return;
  const Tensor host = on_cpu(dense(regions));
  const auto test = [&](const auto* p) {
    for (int64_t r = 0; r < host.size(0); ++r) {
      const double v = p[r * host.size(1)];
      check.that(v >= 0 && v < double(images) && v == std::floor(v), argument,
                 ": expected an integer image index in 0..", images - 1, " in row ", r, ", got ", v);
    }
  };
  if (host.scalar_type() == ScalarType::Double) test(data<double>(host));
  else test(data<float>(host));
}

}  // namespace FV_BACKEND
}  // namespace fastvision::binding
