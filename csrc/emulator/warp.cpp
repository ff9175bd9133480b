#include "warp.h"

#include <cstring>
#include <vector>

#include "scheduler.h"

namespace fastvision::emulator {
namespace {

constexpr unsigned kSlots = 64;

struct Rendezvous {
  Meeting meeting;
  Combine combine;
  unsigned arrived = 0, first = 0, slot = 0;
};

struct Warp {
  unsigned absent = 0;  // lanes that have returned or never existed
  unsigned meetings = 0;
  std::vector<Rendezvous> open;  // more than one where parts of the warp have diverged
  void* operands[32];
  char order[2][kSlots];  // addresses for ThreadSanitizer, by parity of the block and in turn
};
std::vector<Warp> warps;

void complete_if_all_came(Warp& warp, unsigned warp_number, std::size_t k) {
  const Rendezvous rendezvous = warp.open[k];
  if ((rendezvous.arrived | (warp.absent & rendezvous.meeting.mask)) != rendezvous.meeting.mask) return;
  warp.open.erase(warp.open.begin() + std::ptrdiff_t(k));
  if (rendezvous.meeting.needs_all_lanes && rendezvous.arrived != 0xffffffffu)
    fail(text(rendezvous.meeting.name, " needs all 32 lanes of the warp, only those of 0x", std::hex,
              rendezvous.arrived, " came"),
         block.threads[rendezvous.first].here);
  rendezvous.combine(rendezvous.arrived, warp.operands);
  unsigned threads[32];
  std::size_t count = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (rendezvous.arrived >> lane & 1) {
      threads[count] = warp_number * 32 + lane;
      block.threads[threads[count++]].state = State::runnable;
    }
  make_runnable(threads, count);
  note_progress();
}

bool agree(const Meeting& a, const Meeting& b) {
  return a.bytes == b.bytes && (a.name == b.name || std::strcmp(a.name, b.name) == 0);
}

}  // namespace

void begin_warps() {
  const std::size_t threads = block.threads.size();
  warps.resize((threads + 31) / 32);
  for (Warp& warp : warps) {
    warp.absent = 0;
    warp.open.clear();
  }
  if (threads % 32) warps.back().absent = ~0u << threads % 32;
}

void leave_warp(const Thread& thread) {
  Warp& warp = warps[thread.warp];
  warp.absent |= 1u << thread.lane;
  for (std::size_t k = warp.open.size(); k-- > 0;) complete_if_all_came(warp, thread.warp, k);
}

void meet(const Meeting& meeting, void* operand, Combine combine, const Location& here) {
  Thread& thread = *block.current;
  Warp& warp = warps[thread.warp];
  const IgnoreAccesses ignore;
  if (!(meeting.mask >> thread.lane & 1))
    fail(text(meeting.name, ": the calling lane ", thread.lane, " is not in its own mask"), here);
  std::size_t k = 0;
  while (k < warp.open.size() && warp.open[k].meeting.mask != meeting.mask) ++k;
  if (k == warp.open.size()) warp.open.push_back({meeting, combine, 0, thread.number, warp.meetings++ % kSlots});
  Rendezvous& rendezvous = warp.open[k];
  if (!agree(rendezvous.meeting, meeting)) {
    const Thread& first = block.threads[rendezvous.first];
    fail(text("divergent warp operation: lane ", thread.lane, " executes ", meeting.name, " at ", At{here}, ", lane ",
              first.lane, " executes ", first.operation, " at ", At{first.here}),
         here);
  }
  rendezvous.arrived |= 1u << thread.lane;
  warp.operands[thread.lane] = operand;
  thread.wait_in(State::in_warp_operation, meeting.name, here);
  thread.mask = meeting.mask;
  const void* order = &warp.order[block.serial % 2][rendezvous.slot];
  if (meeting.orders_memory) publish(order);
  complete_if_all_came(warp, thread.warp, k);
  suspend();
  if (meeting.orders_memory) observe(order);
}

unsigned lane_id() { return block.current->lane; }

void sync_warp(unsigned mask, const Location& here) {
  meet({"__syncwarp", mask, 0, true}, nullptr, [](unsigned, void* const*) {}, here);
}

// Shuffles and votes do not order memory.
std::uint64_t shuffle(const char* name, unsigned mask, std::uint64_t value, std::size_t bytes, int source_lane,
                      const Location& here) {
  struct Operand {
    std::uint64_t value;
    int source_lane;
    std::uint64_t result;
  } mine{value, source_lane, 0};
  const auto combine = [](Lanes<Operand> lanes) {
    constexpr std::uint64_t kJunk = ~std::uint64_t(0);  // reading a lane that takes no part is undefined
    lanes.for_each(
        [&](Operand& lane, int) { lane.result = lanes.has(lane.source_lane) ? lanes[lane.source_lane].value : kJunk; });
  };
  meet({name, mask, bytes}, mine, combine, here);
  return mine.result;
}

unsigned ballot(unsigned mask, bool predicate, const Location& here) {
  struct Operand {
    bool predicate;
    unsigned result;
  } mine{predicate, 0};
  const auto combine = [](Lanes<Operand> lanes) {
    unsigned votes = 0;
    lanes.for_each([&](Operand& lane, int number) { votes |= unsigned(lane.predicate) << number; });
    lanes.for_each([&](Operand& lane, int) { lane.result = votes; });
  };
  meet({"__ballot/any/all_sync", mask}, mine, combine, here);
  return mine.result;
}

unsigned match_any(unsigned mask, std::uint64_t value, std::size_t bytes, const Location& here) {
  struct Operand {
    std::uint64_t value;
    unsigned result;
  } mine{value, 0};
  const auto combine = [](Lanes<Operand> lanes) {
    lanes.for_each([&](Operand& lane, int) {
      lane.result = 0;
      lanes.for_each([&](Operand& other, int number) { lane.result |= unsigned(other.value == lane.value) << number; });
    });
  };
  meet({"__match_any_sync", mask, bytes}, mine, combine, here);
  return mine.result;
}

std::uint32_t reduce(Reduction reduction, unsigned mask, std::uint32_t value, const Location& here) {
  struct Operand {
    std::uint32_t value;
    Reduction reduction;
    std::uint32_t result;
  } mine{value, reduction, 0};
  const auto combine = [](Lanes<Operand> lanes) {
    bool first = true;
    std::uint32_t sum = 0;
    lanes.for_each([&](Operand& lane, int) {
      const std::uint32_t v = lane.value;
      const auto is_less = [](std::uint32_t a, std::uint32_t b) { return std::int32_t(a) < std::int32_t(b); };
      if (first) {
        sum = v;
      } else {
        switch (lane.reduction) {
          case Reduction::add: sum += v; break;
          case Reduction::min: sum = v < sum ? v : sum; break;
          case Reduction::max: sum = v > sum ? v : sum; break;
          case Reduction::min_signed: sum = is_less(v, sum) ? v : sum; break;
          case Reduction::max_signed: sum = is_less(sum, v) ? v : sum; break;
          case Reduction::bit_and: sum &= v; break;
          case Reduction::bit_or: sum |= v; break;
          case Reduction::bit_xor: sum ^= v; break;
        }
      }
      first = false;
    });
    lanes.for_each([&](Operand& lane, int) { lane.result = sum; });
  };
  static const char* const kNames[] = {"__reduce_add_sync",          "__reduce_min_sync",          "__reduce_max_sync",
                                       "__reduce_min_sync (signed)", "__reduce_max_sync (signed)", "__reduce_and_sync",
                                       "__reduce_or_sync",           "__reduce_xor_sync"};
  meet({kNames[int(reduction)], mask}, mine, combine, here);
  return mine.result;
}

}  // namespace fastvision::emulator
