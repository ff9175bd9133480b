// Atomic functions. Each returns the old value and orders nothing, as in CUDA; the operation itself is a real one, so
// ThreadSanitizer knows that it does not race.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "runtime.h"

namespace fastvision::emulator {

// Keeps a parameter from deciding T: atomicAdd(&count, 1) adds an unsigned to an unsigned.
template <class T>
using Same = std::type_identity_t<T>;

template <class T, class F>
inline T read_modify_write(T* p, const Location& here, F modify) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 2, std::uint16_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>>;
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(T)) fail("atomic: the address is not aligned to its type", here);
  auto* const memory = reinterpret_cast<Bits*>(p);
  Bits old = __atomic_load_n(memory, __ATOMIC_RELAXED), now;
  do {
    now = std::bit_cast<Bits>(modify(std::bit_cast<T>(old)));
  } while (!__atomic_compare_exchange_n(memory, &old, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  after_atomic(p, now != old, here);
  return std::bit_cast<T>(old);
}

}  // namespace fastvision::emulator

#define FV_ATOMIC(name, expression)                                                                    \
  template <class T>                                                                                   \
  inline T name(T* p, fastvision::emulator::Same<T> value, FV_HERE) {                                  \
    return fastvision::emulator::read_modify_write(p, here, [value](T old) { return T(expression); }); \
  }
FV_ATOMIC(atomicAdd, old + value)
FV_ATOMIC(atomicSub, old - value)
FV_ATOMIC(atomicMin, value < old ? value : old)
FV_ATOMIC(atomicMax, old < value ? value : old)
FV_ATOMIC(atomicAnd, old& value)
FV_ATOMIC(atomicOr, old | value)
FV_ATOMIC(atomicXor, old ^ value)
FV_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
#undef FV_ATOMIC

template <class T>
inline T atomicExch(T* p, fastvision::emulator::Same<T> value, FV_HERE) {
  return fastvision::emulator::read_modify_write(p, here, [value](T) { return value; });
}
template <class T>
inline T atomicCAS(T* p, fastvision::emulator::Same<T> expected, fastvision::emulator::Same<T> value, FV_HERE) {
  return fastvision::emulator::read_modify_write(p, here, [=](T old) { return old == expected ? value : old; });
}
