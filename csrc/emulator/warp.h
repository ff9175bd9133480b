// Operations that the lanes of a warp do together: all that are named in the mask come, then the last one to come
// computes the results of all. Lanes that have returned, or that a partial warp lacks, are not waited for.
#pragma once

#include "runtime.h"

namespace fastvision::emulator {

// The lanes that came, each with what it brought. Operand is a type of the operation's own.
template <class Operand>
class Lanes {
 public:
  Lanes(unsigned present, void* const* operands) : present_(present), operands_(operands) {}
  bool has(int lane) const { return present_ >> lane & 1; }
  Operand& operator[](int lane) const { return *static_cast<Operand*>(operands_[lane]); }
  template <class F>
  void for_each(F f) const {
    for (int lane = 0; lane < 32; ++lane)
      if (has(lane)) f((*this)[lane], lane);
  }

 private:
  unsigned present_;
  void* const* operands_;
};

// Lanes that meet must agree on the name, the mask and the size of the elements.
struct Meeting {
  const char* name;
  unsigned mask;
  std::size_t bytes = 0;
  bool orders_memory = false;
  bool needs_all_lanes = false;
};
using Combine = void (*)(unsigned present, void* const* operands);
void meet(const Meeting& meeting, void* operand, Combine combine, const Location& here);

// combine(Lanes<Operand>) must not capture anything.
template <class Operand, class F>
void meet(const Meeting& meeting, Operand& mine, F, const Location& here) {
  meet(meeting, &mine, [](unsigned present, void* const* operands) { F()(Lanes<Operand>(present, operands)); }, here);
}

}  // namespace fastvision::emulator
