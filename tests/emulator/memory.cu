// Atomics, shared memory, fences and arithmetic: what the CUDA C++ Programming Guide says they do.
#include "harness.h"

namespace {

struct Totals {
  int sum, highest, lowest, exchanged;
  unsigned ring, lock, either, both, odd;
  float real;
  double real64;
  unsigned long long bits;
  int guarded;
};
__global__ void add_up(Totals* t) {
  const int thread = int(threadIdx.x);
  atomicAdd(&t->sum, 3);
  atomicSub(&t->sum, 2);
  atomicMax(&t->highest, thread);
  atomicMin(&t->lowest, -thread);
  atomicInc(&t->ring, 6);
  atomicOr(&t->either, 1u << thread % 32);
  atomicAnd(&t->both, ~(1u << thread % 8));
  atomicXor(&t->odd, 1u << thread % 16);
  atomicAdd(&t->real, 0.5f);
  atomicAdd(&t->real64, 0.25);
  atomicOr(&t->bits, 1ull << thread % 64);
  if (thread == 5) atomicExch(&t->exchanged, 55);
  bool done = false;
  while (!done) {  // a spin lock: the holder gets its turn
    if (atomicCAS(&t->lock, 0u, 1u) == 0u) {
      __threadfence();
      t->guarded = t->guarded + 1;
      __threadfence();
      atomicExch(&t->lock, 0u);
      done = true;
    }
  }
}
void atomics() {
  Buffer<Totals> t(1, Totals{});
  t[0].both = ~0u;
  run(add_up, 3, 100, 0, t.data());
  expect_equal(t[0].sum, 300, "sum");
  expect_equal(t[0].highest, 99, "max");
  expect_equal(t[0].lowest, -99, "min");
  expect_equal(t[0].ring, 300u % 7, "inc");
  expect_equal(t[0].either, ~0u, "or");
  expect_equal(t[0].both, 0xffffff00u, "and");
  unsigned odd = 0;
  for (int i = 0; i < 300; ++i) odd ^= 1u << i % 100 % 16;
  expect_equal(t[0].odd, odd, "xor");
  expect_equal(t[0].real, 150.f, "float sum");
  expect_equal(t[0].real64, 75., "double sum");
  expect_equal(t[0].bits, ~0ull, "64-bit or");
  expect_equal(t[0].exchanged, 55, "exchange");
  expect_equal(t[0].guarded, 300, "sum under the lock");
}

// One variable per function and instantiation, as in CUDA.
template <class T>
__device__ T shared_size() {
  FV_SHARED(size, T);
  if (threadIdx.x == 0) size = T(sizeof(T));
  __syncthreads();
  const T result = size;
  __syncthreads();
  return result;
}
__global__ void use_shared_of_three_types(double* out) {
  out[threadIdx.x] = double(shared_size<float>()) + 10 * shared_size<double>() + 100 * shared_size<short>();
}
__global__ void reverse_dynamic(int* out) {
  FV_DYNAMIC_SHARED(int, values);
  values[threadIdx.x] = int(threadIdx.x + 1000 * blockIdx.x);
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}
void shared_memory() {
  Buffer<double> sizes(64);
  run(use_shared_of_three_types, 1, 64, 0, sizes.data());
  for (int t = 0; t < 64; ++t) expect_equal(sizes[t], 4. + 80. + 200., "thread", t);
  Buffer<int> out(3 * 64);
  run(reverse_dynamic, 3, 64, 64 * sizeof(int), out.data());
  for (int i = 0; i < 3 * 64; ++i) expect_equal(out[i], i / 64 * 1000 + 63 - i % 64, "element", i);
}

// The last block to finish adds what all have left, with the ticket reset by a plain store.
__global__ void sum_of_blocks(const int* in, int* partial, unsigned* ticket, int* out) {
  FV_SHARED(last, bool);
  FV_SHARED(sum, int);
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, in[blockIdx.x * blockDim.x + threadIdx.x]);
  __syncthreads();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    int total = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) total += partial[b];
    *out = total;
    *ticket = 0;
  }
}
void last_block() {
  Buffer<int> in(7 * 64), partial(7), out(1);
  Buffer<unsigned> ticket(1);
  for (int i = 0; i < 7 * 64; ++i) in[i] = i;
  for (int round = 0; round < 2; ++round) {
    out[0] = 0;
    run(sum_of_blocks, 7, 64, 0, in.data(), partial.data(), ticket.data(), out.data());
    expect_equal(out[0], 447 * 448 / 2, "sum");
    expect_equal(ticket[0], 0u, "ticket");
  }
}

__global__ void count_bits(int* out) {
  const int results[] = {__popc(0xf0f0u),       __popcll(~0ull), __ffs(0),          __ffs(8),
                         __ffsll(1ll << 40),    __clz(1),        __clz(0),          __clzll(1),
                         int(__brev(1u) >> 31), min(3, 5),       max(3u, 5u) == 5u, __float2int_rd(-1.5f)};
  for (int k = 0; k < 12; ++k) out[k] = results[k];
}
void arithmetic() {
  const int expected[] = {8, 64, 0, 4, 41, 31, 32, 63, 1, 3, 1, -2};
  Buffer<int> out(12);
  run(count_bits, 1, 1, 0, out.data());
  for (int k = 0; k < 12; ++k) expect_equal(out[k], expected[k], "result", k);
}

}  // namespace

std::vector<Case> memory_cases() {
  return {
      {"atomics", atomics}, {"shared_memory", shared_memory}, {"last_block", last_block}, {"arithmetic", arithmetic}};
}
