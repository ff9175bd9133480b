// Scheduler of the CUDA emulator. Build this file WITHOUT -fsanitize=* (pass -DFV_EMULATOR_ASAN / -DFV_EMULATOR_TSAN instead):
// the kernels are instrumented, the machinery is not, so that ThreadSanitizer sees only the kernels' own accesses.
#include "cuda_emulator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <vector>
#if defined(FV_EMULATOR_UCONTEXT)
#include <ucontext.h>
#elif defined(FV_EMULATOR_BOOST)
#include <boost/context/detail/fcontext.hpp>
#endif
#if defined(FV_EMULATOR_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(FV_EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif

namespace fastvision::emulator {
namespace {
// ------------------------------------------------------------------ stack switch
#if defined(FV_EMULATOR_UCONTEXT)
struct Context { ucontext_t u; };
inline void switch_to(Context& from, Context& to) { swapcontext(&from.u, &to.u); }
inline void prepare(Context& c, char* base, std::size_t n, void (*entry)()) {
  getcontext(&c.u); c.u.uc_stack.ss_sp = base; c.u.uc_stack.ss_size = n; c.u.uc_link = nullptr; makecontext(&c.u, entry, 0);
}
#elif defined(FV_EMULATOR_BOOST)
namespace bc = boost::context::detail;
struct Context { bc::fcontext_t f = nullptr; };
Context* boost_from;
inline void switch_to(Context& from, Context& to) {
  boost_from = &from; auto t = bc::jump_fcontext(to.f, nullptr); boost_from->f = t.fctx;
}
void (*boost_entry)();
inline void prepare(Context& c, char* base, std::size_t n, void (*entry)()) {
  boost_entry = entry;
  c.f = bc::make_fcontext(base + n, n, [](bc::transfer_t t) { boost_from->f = t.fctx; boost_entry(); });
}
#elif defined(__x86_64__)
struct Context { void* sp = nullptr; };
__attribute__((naked, noinline, noclone)) void emulator_switch(void**, void*) {  // System V ABI: callee-saved registers
  asm volatile(
      "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
inline void switch_to(Context& from, Context& to) { emulator_switch(&from.sp, to.sp); }
inline void prepare(Context& c, char* base, std::size_t n, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(base + n);
  *--top = nullptr;                               // end of the call chain for unwinders
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  c.sp = top;
}
#else
#error "no stack switch for this machine: define FV_EMULATOR_UCONTEXT"
#endif

// ------------------------------------------------------------------ state
struct Stack { char* base; std::size_t size; Context ctx; void* fake = nullptr; };
struct Copy { void* dst; const void* src; int size, src_bytes, group; };
enum class State : unsigned char { fresh, ready, block, warp, done };
struct Thread {
  uint3 tid{};
  unsigned linear = 0, lane = 0, warp = 0, mask = 0, slot = 0;
  State state = State::fresh;
  Stack* stack = nullptr;
  WarpArg* arg = nullptr;
  const char* what = "";
  Loc loc;
  std::vector<Copy> copies;
  int groups = 0;
  bool fenced = false;
  const void* last_atomic = nullptr;
#if defined(FV_EMULATOR_TSAN)
  void* tsan = nullptr;
#endif
};
struct Rendezvous { unsigned mask = 0, arrived = 0, elem = 0, slot = 0; WarpOp op{}; int first = 0; };
struct Warp { unsigned exited = 0; unsigned seq = 0; std::vector<Rendezvous> open; unsigned base = 0; char sync[2][64]; };
struct Machine {
  Config cfg; Stats st{};
  std::vector<Thread> threads; std::vector<Warp> warps;
  std::vector<unsigned> ready, waiting;           // ready: popped from the back
  std::vector<Stack*> free_stacks;
  std::vector<SharedVar*> vars;
  unsigned alive = 0, at_barrier = 0, epoch = 0, first_waiter = 0;
  BlockOp barrier_op{}; int barrier_sum = 0, barrier_result[2] = {};
  Thread* cur = nullptr;
  Context main; void* main_fake = nullptr; const void* main_base = nullptr; std::size_t main_size = 0;
  void (*body)(void*) = nullptr; void* ctx = nullptr;
  std::exception_ptr error;
  std::uint64_t block_id = 0, rng = 0, spin = 0, idle_yields = 0;
  char* dyn = nullptr; std::size_t dyn_size = 0, static_size = 0;
  char block_sync[2][2], start_sync, end_sync;
  bool running = false;
#if defined(FV_EMULATOR_TSAN)
  void* main_tsan = nullptr;
  struct Fiber { void* tsan = nullptr; Stack* stack = nullptr; };
  std::vector<Fiber> fibers[2];
#endif
  Machine() {
    if (const char* e = std::getenv("FV_EMULATOR_ORDER"))
      cfg.order = !std::strcmp(e, "reverse") ? Order::reverse : !std::strcmp(e, "random") ? Order::random : Order::forward;
    if (const char* e = std::getenv("FV_EMULATOR_SEED")) cfg.seed = std::strtoull(e, nullptr, 10);
    if (const char* e = std::getenv("FV_EMULATOR_CP_ASYNC")) cfg.cp_async_lazy = std::strcmp(e, "eager") != 0;
    if (const char* e = std::getenv("FV_EMULATOR_POISON")) cfg.poison = std::strcmp(e, "0") != 0;
    if (const char* e = std::getenv("FV_EMULATOR_STRICT_EXIT")) cfg.strict_exit = std::strcmp(e, "0") != 0;
  }
};
Machine& m() { static Machine* x = new Machine; return *x; }
std::mutex launch_mutex;

std::uint64_t next_random(Machine& g) {           // splitmix64
  std::uint64_t z = (g.rng += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull; z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
std::string dim(const uint3& d) { return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")"; }
std::string where(const Loc& l) {
  std::string f = l.file_name();
  return f.substr(f.rfind('/') + 1) + ":" + std::to_string(l.line());
}
// ThreadSanitizer: the emulator's own malloc/memmove calls on a fiber are not accesses of the kernel
struct Quiet {
#if defined(FV_EMULATOR_TSAN)
  Quiet() { __tsan_ignore_thread_begin(); }
  ~Quiet() { __tsan_ignore_thread_end(); }
#else
  Quiet() {}
#endif
  Quiet(const Quiet&) = delete;
};
// ThreadSanitizer happens-before edges
inline void hb_release([[maybe_unused]] const void* p) {
#if defined(FV_EMULATOR_TSAN)
  __tsan_release(const_cast<void*>(p));
#endif
}
inline void hb_acquire([[maybe_unused]] const void* p) {
#if defined(FV_EMULATOR_TSAN)
  __tsan_acquire(const_cast<void*>(p));
#endif
}
// ------------------------------------------------------------------ fibers
std::size_t stack_bytes(const Machine& g) {
  if (g.cfg.stack_bytes) return g.cfg.stack_bytes;
#if defined(FV_EMULATOR_ASAN)
  return 256 * 1024;
#elif defined(FV_EMULATOR_TSAN)
  return 48 * 1024;
#else
  return 128 * 1024;
#endif
}
Stack* new_stack(Machine& g) {
  const std::size_t n = stack_bytes(g), guard = 4096;
  void* p = mmap(nullptr, n + guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (p == MAP_FAILED) throw Error("cannot allocate a fiber stack");
  mprotect(p, guard, PROT_NONE);                  // overflow becomes SIGSEGV
  ++g.st.stacks;
  return new Stack{static_cast<char*>(p) + guard, n, {}, nullptr};
}
Stack* get_stack(Machine& g, [[maybe_unused]] Thread& t) {
#if defined(FV_EMULATOR_TSAN)
  // Creating a TSan fiber is expensive (0.7 ms here), so there are two sets, for odd and even blocks, which never
  // synchronise with each other inside a launch: every race between an odd and an even block stays visible.
  auto& set = g.fibers[g.block_id & 1];
  if (set.size() <= t.linear) set.resize(1024);
  auto& f = set[t.linear];
  if (!f.stack) { f.stack = new_stack(g); f.tsan = __tsan_create_fiber(0); }
  t.tsan = f.tsan;
  const std::string name = "block " + dim(blockIdx) + " thread " + dim(t.tid);
  __tsan_set_fiber_name(t.tsan, name.c_str());
  return f.stack;
#else
  if (g.free_stacks.empty()) return new_stack(g);
  Stack* s = g.free_stacks.back();
  g.free_stacks.pop_back();
  return s;
#endif
}
void release_stack([[maybe_unused]] Machine& g, [[maybe_unused]] Thread& t, [[maybe_unused]] bool abandoned) {
#if defined(FV_EMULATOR_TSAN)
  if (abandoned) g.fibers[g.block_id & 1][t.linear] = {};  // leaked: TSan refuses to destroy a fiber in the middle of a call
#else
  g.free_stacks.push_back(t.stack);
#endif
}
void suspend() {                                  // fiber -> scheduler
  Machine& g = m();
  Stack* s = g.cur->stack;
#if defined(FV_EMULATOR_ASAN)
  __sanitizer_start_switch_fiber(&s->fake, g.main_base, g.main_size);
#endif
#if defined(FV_EMULATOR_TSAN)
  __tsan_switch_to_fiber(g.main_tsan, __tsan_switch_to_fiber_no_sync);
#endif
  switch_to(s->ctx, g.main);
#if defined(FV_EMULATOR_ASAN)
  __sanitizer_finish_switch_fiber(s->fake, &g.main_base, &g.main_size);
#endif
}
void finish_thread(Machine& g, Thread& t);
void set_current(Machine& g, Thread& t) { g.cur = &t; threadIdx = t.tid; g.spin = 0; }
int pick(Machine& g) {
  if (g.ready.empty()) return -1;
  if (g.cfg.order == Order::random && g.cfg.seed % 2 == 0) std::swap(g.ready[next_random(g) % g.ready.size()], g.ready.back());
  const unsigned i = g.ready.back();
  g.ready.pop_back();
  return static_cast<int>(i);
}
void fiber_main() {
  Machine& g = m();
#if defined(FV_EMULATOR_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &g.main_base, &g.main_size);
#endif
  for (;;) {
    hb_acquire(&g.start_sync);
    try { g.body(g.ctx); } catch (...) { if (!g.error) g.error = std::current_exception(); }
    { Quiet q; finish_thread(g, *g.cur); }
#if !defined(FV_EMULATOR_TSAN)                         // a thread that never blocked hands its stack to the next one, no switch
    if (!g.error && !g.ready.empty()) {
      const int i = pick(g);
      Thread& n = g.threads[i];
      if (n.state == State::fresh) { n.stack = g.cur->stack; n.state = State::ready; set_current(g, n); continue; }
      g.ready.push_back(i);
    }
#endif
    suspend();
    std::abort();                                 // a finished stack is restarted through prepare()
  }
}
void resume(Machine& g, Thread& t) {              // scheduler -> fiber
  if (t.state == State::fresh) {
    t.stack = get_stack(g, t);
    prepare(t.stack->ctx, t.stack->base, t.stack->size, &fiber_main);
    t.stack->fake = nullptr;
#if defined(FV_EMULATOR_ASAN)
    __asan_unpoison_memory_region(t.stack->base, t.stack->size);
#endif
  }
  t.state = State::ready;
  set_current(g, t);
  ++g.st.switches;
#if defined(FV_EMULATOR_ASAN)
  __sanitizer_start_switch_fiber(&g.main_fake, t.stack->base, t.stack->size);
#endif
#if defined(FV_EMULATOR_TSAN)
  __tsan_switch_to_fiber(t.tsan, __tsan_switch_to_fiber_no_sync);
#endif
  switch_to(g.main, t.stack->ctx);
#if defined(FV_EMULATOR_ASAN)
  __sanitizer_finish_switch_fiber(g.main_fake, nullptr, nullptr);
#endif
  if (g.cur->state == State::done) release_stack(g, *g.cur, false);  // g.cur: a stack may have run several threads
}
void push_ready(Machine& g, unsigned* idx, std::size_t n) {  // so that they pop in the configured order
  // even seeds: uniform choice among the runnable threads (warps stay close together); odd seeds: shuffled, depth
  // first (one warp runs as far ahead as the barriers let it)
  if (g.cfg.order == Order::random && g.cfg.seed % 2) for (std::size_t i = n; i > 1; --i) std::swap(idx[i - 1], idx[next_random(g) % i]);
  if (g.cfg.order == Order::reverse) for (std::size_t i = 0; i < n; ++i) g.ready.push_back(idx[i]);
  else for (std::size_t i = n; i-- > 0;) g.ready.push_back(idx[i]);
}
// ------------------------------------------------------------------ block barrier
void release_barrier(Machine& g) {
  const bool all = g.barrier_sum == static_cast<int>(g.at_barrier);
  g.barrier_result[g.epoch & 1] = g.barrier_op == BlockOp::count ? g.barrier_sum : g.barrier_op == BlockOp::all ? all : g.barrier_sum != 0;
  if (g.cfg.strict_exit && g.at_barrier != g.threads.size()) {
    for (Thread& t : g.threads)
      if (t.state == State::block) fail("__syncthreads reached by " + std::to_string(g.at_barrier) + " of " + std::to_string(g.threads.size()) + " threads, the others have returned", t.loc);
  }
  g.waiting.clear();
  for (Thread& t : g.threads) if (t.state == State::block) { t.state = State::ready; g.waiting.push_back(t.linear); }
  push_ready(g, g.waiting.data(), g.waiting.size());
  g.at_barrier = 0; g.barrier_sum = 0; ++g.epoch; ++g.st.barriers; g.idle_yields = 0;
}
// ------------------------------------------------------------------ warp collectives
const char* op_name(WarpOp o) {
  static const char* n[] = {"__syncwarp", "__shfl_*_sync", "__ballot/any/all_sync", "__match_any_sync", "mma bf16", "mma f16", "mma tf32", "ldmatrix", "ldmatrix.trans", "__reduce_add_sync"};
  return n[static_cast<int>(o)];
}
float half_bits(std::uint32_t r, int hi, bool bf16) {
  const std::uint16_t h = static_cast<std::uint16_t>(hi ? r >> 16 : r);
  return bf16 ? __builtin_bit_cast(float, static_cast<std::uint32_t>(h) << 16) : static_cast<float>(__builtin_bit_cast(_Float16, h));
}
void compute_mma(WarpOp op, WarpArg* const* w) {
  const bool tf32 = op == WarpOp::mma_tf32, bf = op == WarpOp::mma_bf16;
  const int K = tf32 ? 8 : 16;
  float A[16][16], B[16][8];
  for (int l = 0; l < 32; ++l) {
    const int gid = l >> 2, tig = l & 3;
    if (tf32) {
      for (int i = 0; i < 4; ++i) A[gid + (i & 1) * 8][tig + (i >> 1) * 4] = __builtin_bit_cast(float, w[l]->a[i] & 0xffffe000u);
      for (int i = 0; i < 2; ++i) B[tig + i * 4][gid] = __builtin_bit_cast(float, w[l]->b[i] & 0xffffe000u);
    } else {
      for (int i = 0; i < 8; ++i) A[gid + ((i >> 1) & 1) * 8][tig * 2 + (i & 1) + (i >> 2) * 8] = half_bits(w[l]->a[i >> 1], i & 1, bf);
      for (int i = 0; i < 4; ++i) B[tig * 2 + (i & 1) + (i >> 1) * 8][gid] = half_bits(w[l]->b[i >> 1], i & 1, bf);
    }
  }
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) {
      const int r = (l >> 2) + (i >> 1) * 8, c = (l & 3) * 2 + (i & 1);
      double s = w[l]->c[i];                      // exact products, one rounding at the end
      for (int k = 0; k < K; ++k) s += static_cast<double>(A[r][k]) * static_cast<double>(B[k][c]);
      w[l]->d[i] = static_cast<float>(s);
    }
}
void compute(WarpOp op, unsigned lanes, WarpArg* const* w) {
  const std::uint64_t junk = 0xffffffffffffffffull;
  switch (op) {
    case WarpOp::sync: break;
    case WarpOp::shfl:
      for (int l = 0; l < 32; ++l) if (lanes >> l & 1) w[l]->out = (lanes >> w[l]->src & 1) ? w[w[l]->src]->in : junk;
      break;
    case WarpOp::ballot: {
      unsigned r = 0;
      for (int l = 0; l < 32; ++l) if (lanes >> l & 1) r |= static_cast<unsigned>(w[l]->in != 0) << l;
      for (int l = 0; l < 32; ++l) if (lanes >> l & 1) w[l]->out = r;
      break;
    }
    case WarpOp::reduce_add: {
      std::uint32_t r = 0;
      for (int l = 0; l < 32; ++l) if (lanes >> l & 1) r += static_cast<std::uint32_t>(w[l]->in);
      for (int l = 0; l < 32; ++l) if (lanes >> l & 1) w[l]->out = r;
      break;
    }
    case WarpOp::match:
      for (int l = 0; l < 32; ++l) if (lanes >> l & 1) {
        unsigned r = 0;
        for (int k = 0; k < 32; ++k) if (lanes >> k & 1) r |= static_cast<unsigned>(w[k]->in == w[l]->in) << k;
        w[l]->out = r;
      }
      break;
    default:
      if (lanes != 0xffffffffu) fail(std::string(op_name(op)) + " needs all 32 lanes of the warp (mask of live lanes: " + std::to_string(lanes) + ")");
      if (op == WarpOp::ldmatrix || op == WarpOp::ldmatrix_t) {
        for (int l = 0; l < 32; ++l)
          for (int q = 0; q < 4; ++q) {
            std::uint32_t v = 0;
            for (int h = 0; h < 2; ++h) {
              const int r = op == WarpOp::ldmatrix ? l >> 2 : (l & 3) * 2 + h, c = op == WarpOp::ldmatrix ? (l & 3) * 2 + h : l >> 2;
              v |= ((w[q * 8 + r]->row[c >> 1] >> (16 * (c & 1))) & 0xffffu) << (16 * h);
            }
            w[l]->frag[q] = v;
          }
      } else compute_mma(op, w);
  }
}
bool try_complete(Machine& g, Warp& w, std::size_t k) {
  Rendezvous& r = w.open[k];
  if ((r.arrived | (w.exited & r.mask)) != r.mask) return false;
  WarpArg* args[32]; unsigned idx[32]; std::size_t n = 0;
  for (unsigned l = 0; l < 32; ++l)
    if (r.arrived >> l & 1) { Thread& t = g.threads[w.base + l]; args[l] = t.arg; t.state = State::ready; idx[n++] = t.linear; }
    else args[l] = nullptr;
  const Rendezvous done = r;
  w.open.erase(w.open.begin() + static_cast<std::ptrdiff_t>(k));
  compute(done.op, done.arrived, args);
  push_ready(g, idx, n);
  ++g.st.warp_ops; g.idle_yields = 0;
  return true;
}
void finish_thread(Machine& g, Thread& t) {
  t.state = State::done;
  --g.alive;
  g.idle_yields = 0;
  hb_release(&g.end_sync);
  if (g.error) return;
  Warp& w = g.warps[t.warp];
  w.exited |= 1u << t.lane;
  try {
    for (std::size_t k = 0; k < w.open.size();) if (!try_complete(g, w, k)) ++k;
    if (g.at_barrier && g.at_barrier == g.alive) release_barrier(g);
  } catch (...) { g.error = std::current_exception(); }
}
[[noreturn]] void deadlock(Machine& g) {
  struct Group { std::string what; std::vector<unsigned> t; };
  std::vector<Group> groups;
  unsigned done = 0;
  for (Thread& t : g.threads) {
    if (t.state == State::done) { ++done; continue; }
    std::string what = std::string(t.what) + " at " + where(t.loc);
    if (t.state == State::warp) {
      char b[64]; std::snprintf(b, sizeof b, " (warp %u, mask 0x%08x)", t.warp, t.mask); what += b;
    }
    auto it = std::find_if(groups.begin(), groups.end(), [&](const Group& x) { return x.what == what; });
    if (it == groups.end()) { groups.push_back({what, {}}); it = groups.end() - 1; }
    it->t.push_back(t.linear);
  }
  std::string s = "deadlock in block " + dim(blockIdx) + ":";
  for (const Group& x : groups) {
    s += "\n  " + std::to_string(x.t.size()) + " thread(s) wait in " + x.what + ", threads";
    for (std::size_t i = 0; i < x.t.size();) {
      std::size_t j = i;
      while (j + 1 < x.t.size() && x.t[j + 1] == x.t[j] + 1) ++j;
      s += " " + std::to_string(x.t[i]) + (j > i ? "-" + std::to_string(x.t[j]) : "");
      i = j + 1;
    }
  }
  if (done) s += "\n  " + std::to_string(done) + " thread(s) have returned";
  throw Error(s);
}
void run_block(Machine& g) {
  const unsigned n = static_cast<unsigned>(g.threads.size());
  ++g.block_id;
  g.alive = n; g.at_barrier = 0; g.barrier_sum = 0; g.ready.clear(); g.idle_yields = 0;
  for (Warp& w : g.warps) { w.open.clear(); w.exited = 0; }
  if (n % 32) g.warps.back().exited = ~0u << (n % 32);
  for (Thread& t : g.threads) { t.state = State::fresh; t.copies.clear(); t.groups = 0; t.fenced = false; t.last_atomic = nullptr; }
  g.waiting.resize(n);
  for (unsigned i = 0; i < n; ++i) g.waiting[i] = i;
  push_ready(g, g.waiting.data(), n);
#if defined(FV_EMULATOR_TSAN)
  Quiet q;
  if (g.dyn_size) { std::free(g.dyn); if (posix_memalign(reinterpret_cast<void**>(&g.dyn), 128, g.dyn_size)) throw Error("out of memory"); }
#endif
  if (g.dyn_size && g.cfg.poison) std::memset(g.dyn, static_cast<int>(g.cfg.poison_byte), g.dyn_size);
  while (g.alive) {
    const int i = pick(g);
    if (i < 0) deadlock(g);
    resume(g, g.threads[i]);
    if (g.error) std::rethrow_exception(std::exchange(g.error, nullptr));
  }
  ++g.st.blocks; g.st.threads += n;
}
void reset_after_error(Machine& g) {              // abandon suspended fibers; device code owns no resources
  for (Thread& t : g.threads) {
    if (t.state != State::done && t.state != State::fresh) release_stack(g, t, true);
    t.state = State::done;
  }
  g.error = nullptr;
}
}  // namespace

Config& config() { return m().cfg; }
Stats& stats() { return m().st; }
unsigned lane_id() { return m().cur->lane; }

void fail(const std::string& what, const Loc& l) {
  Machine& g = m();
  throw Error(what + " [" + where(l) + ", block " + dim(blockIdx) + (g.cur ? " thread " + dim(g.cur->tid) : "") + "]");
}

int block_barrier(BlockOp op, int pred, const Loc& l) {
  Machine& g = m();
  Thread& t = *g.cur;
  Quiet q;
  if (g.at_barrier == 0) { g.barrier_op = op; g.first_waiter = t.linear; }
  else {
    const Thread& o = g.threads[g.first_waiter];
    if (op != g.barrier_op || o.loc.line() != l.line() || std::strcmp(o.loc.file_name(), l.file_name()) != 0)
      fail("divergent barrier: this thread is at " + where(l) + ", thread " + dim(o.tid) + " waits at " + where(o.loc), l);
  }
  t.what = "__syncthreads"; t.loc = l; t.state = State::block;
  g.barrier_sum += pred;
  const unsigned epoch = g.epoch;
  hb_release(&g.block_sync[g.block_id & 1][epoch & 1]);
  if (++g.at_barrier == g.alive) release_barrier(g);
  suspend();
  hb_acquire(&g.block_sync[g.block_id & 1][epoch & 1]);
  return g.barrier_result[epoch & 1];
}

void warp_collective(WarpOp op, unsigned mask, unsigned elem, WarpArg& arg, const Loc& l) {
  Machine& g = m();
  Thread& t = *g.cur;
  Warp& w = g.warps[t.warp];
  Quiet q;
  if (!(mask >> t.lane & 1)) fail(std::string(op_name(op)) + ": the calling lane " + std::to_string(t.lane) + " is not in its own mask", l);
  std::size_t k = 0;
  while (k < w.open.size() && w.open[k].mask != mask) ++k;
  if (k == w.open.size()) w.open.push_back({mask, 0, elem, w.seq++ % 64, op, static_cast<int>(t.linear)});
  Rendezvous& r = w.open[k];
  if (r.op != op || r.elem != elem) {
    const Thread& o = g.threads[static_cast<unsigned>(r.first)];
    fail(std::string("divergent warp operation: lane ") + std::to_string(t.lane) + " executes " + op_name(op) + " at " + where(l) + ", lane " + std::to_string(o.lane) + " executes " + op_name(r.op) + " at " + where(o.loc), l);
  }
  r.arrived |= 1u << t.lane;
  t.arg = &arg; t.what = op_name(op); t.loc = l; t.mask = mask; t.state = State::warp; t.slot = r.slot;
  const bool orders = op == WarpOp::sync || op == WarpOp::ldmatrix || op == WarpOp::ldmatrix_t;  // shuffles and votes do not order memory
  if (orders && op == WarpOp::sync) hb_release(&w.sync[g.block_id & 1][t.slot]);
  try_complete(g, w, k);
  suspend();
  if (orders && op == WarpOp::sync) hb_acquire(&w.sync[g.block_id & 1][t.slot]);
}

void* shared_var(SharedVar& v) {
  Machine& g = m();
  Quiet q;
  if (v.block != g.block_id) {
    if (!v.ptr) g.vars.push_back(&v);
#if defined(FV_EMULATOR_TSAN)                          // a new allocation per block: blocks do not share it
    std::free(std::exchange(v.ptr, nullptr));
#endif
    if (!v.ptr && posix_memalign(&v.ptr, v.align, v.size)) throw Error("out of memory");
    if (g.cfg.poison) std::memset(v.ptr, static_cast<int>(g.cfg.poison_byte), v.size);
    v.block = g.block_id;
    g.static_size = 0;
    for (SharedVar* o : g.vars) if (o->block == g.block_id) g.static_size += o->size;
    if (g.static_size > 48 * 1024) fail("more than 48 KiB of static shared memory (" + std::to_string(g.static_size) + " bytes with " + v.name + ")");
    if (g.static_size + g.dyn_size > g.cfg.max_smem) fail("static + dynamic shared memory exceeds the limit of a block");
  }
  return v.ptr;
}
void* dynamic_shared() {
  Machine& g = m();
  if (!g.dyn_size) fail("kernel uses dynamic shared memory but was launched with none");
  return g.dyn;
}
bool in_shared(const void* p, std::size_t n) {
  Machine& g = m();
  const char* c = static_cast<const char*>(p);
  if (g.dyn_size && c >= g.dyn && c + n <= g.dyn + g.dyn_size) return true;
  for (SharedVar* v : g.vars) if (v->block == g.block_id && c >= static_cast<char*>(v->ptr) && c + n <= static_cast<char*>(v->ptr) + v->size) return true;
  return false;
}
void check_shared(const void* p, std::size_t n, std::size_t align, const char* what, const Loc& l) {
  if (reinterpret_cast<std::uintptr_t>(p) % align) fail(std::string(what) + ": address not aligned to " + std::to_string(align), l);
  if (!in_shared(p, n)) fail(std::string(what) + ": address is not in shared memory", l);
}
void check_cp_async(const void* dst, const void* src, int size, int src_bytes, const Loc& l) {
  check_shared(dst, static_cast<std::size_t>(size), static_cast<std::size_t>(size), "cp.async destination", l);
  if (reinterpret_cast<std::uintptr_t>(src) % static_cast<std::uintptr_t>(size)) fail("cp.async source not aligned to " + std::to_string(size), l);
  if (src_bytes < 0 || src_bytes > size) fail("cp.async src-size " + std::to_string(src_bytes) + " out of range", l);
  if (src_bytes && in_shared(src, 1)) fail("cp.async source is in shared memory", l);
}
void cp_async_queue(void* dst, const void* src, int size, int src_bytes) {
  Thread& t = *m().cur;
  Quiet q;
  t.copies.push_back({dst, src, size, src_bytes, t.groups});
}
void cp_async_commit() { ++m().cur->groups; }
void cp_async_wait(int n, bool all) {             // libc memcpy/memset: the sanitizers' interceptors check them
  Thread& t = *m().cur;
  static void* (*volatile copy)(void*, const void*, std::size_t) = std::memcpy;
  static void* (*volatile fill)(void*, int, std::size_t) = std::memset;
  std::size_t kept = 0;
  for (Copy& c : t.copies) {
    if (all || c.group < t.groups - n) {
      if (c.src_bytes) copy(c.dst, c.src, static_cast<std::size_t>(c.src_bytes));
      if (c.src_bytes < c.size) fill(static_cast<char*>(c.dst) + c.src_bytes, 0, static_cast<std::size_t>(c.size - c.src_bytes));
    } else t.copies[kept++] = c;
  }
  t.copies.resize(kept);
}
// C++ fence semantics on top of relaxed atomics, for ThreadSanitizer: fence; atomic = release, atomic; fence = acquire
void fence() {
  Thread& t = *m().cur;
  t.fenced = true;
  if (t.last_atomic) hb_acquire(t.last_atomic);
}
void before_atomic(const void*) {               // also lets spinning threads give way to the others
  Machine& g = m();
  if (!g.running) return;
  Thread& t = *g.cur;

  if (++g.spin < 4096) return;
  if (++g.idle_yields > 20000) fail("livelock: threads only spin on atomics");
  t.what = "spin"; t.state = State::ready;
  g.ready.insert(g.ready.begin(), t.linear);
  suspend();
}
void after_atomic(const void* p) {
  if (!m().running) return;
  Thread& t = *m().cur;
  t.last_atomic = p;
  if (t.fenced) hb_release(p);
}

void run(dim3 grid, dim3 block, std::size_t smem, void (*body)(void*), void* ctx, const Loc& l) {
  std::lock_guard lock(launch_mutex);
  Machine& g = m();
  const std::uint64_t n = std::uint64_t(block.x) * block.y * block.z, nb = std::uint64_t(grid.x) * grid.y * grid.z;
  auto bad = [&](const std::string& s) { throw Error("invalid launch at " + where(l) + ": " + s); };
  if (n == 0 || n > 1024 || block.z > 64) bad("block of " + std::to_string(n) + " threads");
  if (nb == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) bad("grid (" + std::to_string(grid.x) + "," + std::to_string(grid.y) + "," + std::to_string(grid.z) + ")");
  if (smem > g.cfg.max_smem) bad("dynamic shared memory " + std::to_string(smem));
  ++g.st.launches;
  g.body = body; g.ctx = ctx; g.rng = g.cfg.seed; g.error = nullptr;
  ::gridDim = grid; ::blockDim = block;
  if (g.threads.size() != n) { g.threads.clear(); g.threads.resize(n); g.warps.assign((n + 31) / 32, Warp{}); }
  for (std::uint64_t i = 0; i < n; ++i) {
    Thread& t = g.threads[i];
    const unsigned u = static_cast<unsigned>(i);
    t.tid = {u % block.x, u / block.x % block.y, u / (block.x * block.y)};
    t.linear = u; t.lane = u % 32; t.warp = u / 32;
    g.warps[u / 32].base = u / 32 * 32;
  }
  g.ready.reserve(2048); g.waiting.reserve(1024);
  g.dyn = nullptr; g.dyn_size = smem;
  if (smem && posix_memalign(reinterpret_cast<void**>(&g.dyn), 128, smem)) throw Error("out of memory");
#if defined(FV_EMULATOR_TSAN)
  g.main_tsan = __tsan_get_current_fiber();
#endif
  struct Cleanup { Machine& g; ~Cleanup() { hb_acquire(&g.end_sync); std::free(g.dyn); g.dyn = nullptr; g.dyn_size = 0; g.running = false; g.cur = nullptr; } } cleanup{g};
  g.running = true;
  hb_release(&g.start_sync);
  std::vector<std::uint32_t> order;
  if (g.cfg.order == Order::random) {
    order.resize(nb);
    for (std::uint64_t i = 0; i < nb; ++i) order[i] = static_cast<std::uint32_t>(i);
    for (std::uint64_t i = nb; i > 1; --i) std::swap(order[i - 1], order[next_random(g) % i]);
  }
  try {
    for (std::uint64_t k = 0; k < nb; ++k) {
      const std::uint64_t b = g.cfg.order == Order::forward ? k : g.cfg.order == Order::reverse ? nb - 1 - k : order[k];
      ::blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y), static_cast<unsigned>(b / grid.x / grid.y)};
      run_block(g);
    }
  } catch (...) { reset_after_error(g); throw; }
}
}  // namespace fastvision::emulator
