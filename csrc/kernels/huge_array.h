// Memory for a table that is read again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastvision {

// `count` numbers, not initialised. `huge`: in huge pages, where the system has them: what is larger than the
// processor's list of pages is read faster, but the pages are cleared first. Always for what malloc would map anew,
// page by page, in every call.
template <class T>
class HugeArray {
 public:
  HugeArray(size_t count, bool huge) : at(static_cast<T*>(allocate(count * sizeof(T), huge))) {}
  ~HugeArray() { std::free(at); }
  HugeArray(const HugeArray&) = delete;
  HugeArray& operator=(const HugeArray&) = delete;
  T* get() const { return at; }

 private:
  static void* allocate(size_t bytes, bool huge) {
    constexpr size_t kPage = size_t(2) << 20;
    if (bytes > PTRDIFF_MAX - kPage) throw std::bad_alloc();
    constexpr size_t kMapped = size_t(32) << 20;
    huge = huge || bytes >= kMapped;
    const size_t padded = (bytes + kPage - 1) / kPage * kPage;
    void* const p = huge ? std::aligned_alloc(kPage, padded) : std::malloc(bytes ? bytes : 1);
    if (!p) throw std::bad_alloc();
#if defined(__linux__)
    if (huge) madvise(p, padded, MADV_HUGEPAGE);
#endif
    return p;
  }

  T* const at;
};

}  // namespace fastvision
