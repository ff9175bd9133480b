// Geometry, barriers and warp operations: what the CUDA C++ Programming Guide says they do.
#include "harness.h"

using fastvision::kFullWarp;

namespace {

__global__ void count_visits(unsigned* visits) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  visits[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}
void geometry() {
  Buffer<unsigned> visits(2 * 3 * 4 * 2 * 5 * 3);
  run(count_visits, dim3(2, 3, 4), dim3(2, 5, 3), 0, visits.data());
  for (std::size_t i = 0; i < visits.size(); ++i) expect_equal(visits[i], 1u, "visits of", i);
}

__global__ void rotate(int* out, int rounds) {
  FV_SHARED(values, int[128]);
  const int thread = int(threadIdx.x);
  int sum = 0;
  for (int k = 0; k < rounds; ++k) {
    values[thread] = thread + k;
    __syncthreads();
    sum += values[(thread + k) % 128];
    __syncthreads();
  }
  out[thread] = sum;
}
void block_barrier() {
  Buffer<int> out(128);
  run(rotate, 1, 128, 0, out.data(), 50);
  for (int t = 0; t < 128; ++t) {
    int sum = 0;
    for (int k = 0; k < 50; ++k) sum += (t + k) % 128 + k;
    expect_equal(out[t], sum, "thread", t);
  }
}

__global__ void vote_in_block(int* count, int* all, int* any) {
  const int thread = int(threadIdx.x);
  count[thread] = __syncthreads_count(thread % 3 == 0);
  all[thread] = (__syncthreads_and(thread < 100) != 0) * 10 + (__syncthreads_and(thread < 128) != 0);
  any[thread] = (__syncthreads_or(thread == 7) != 0) * 10 + (__syncthreads_or(thread == 200) != 0);
}
void block_votes() {
  Buffer<int> count(128), all(128), any(128);
  run(vote_in_block, 1, 128, 0, count.data(), all.data(), any.data());
  for (int t = 0; t < 128; ++t) {
    expect_equal(count[t], 43, "count of thread", t);
    expect_equal(all[t], 1, "and of thread", t);
    expect_equal(any[t], 10, "or of thread", t);
  }
}

// Threads that have returned are not waited for, in the block and in the warp.
__global__ void return_early(int* out, int stay) {
  if (int(threadIdx.x) >= stay) return;
  const unsigned lanes = __ballot_sync(kFullWarp, 1);
  out[threadIdx.x] = __syncthreads_count(1) * 100 + __popc(lanes);
}
void early_return() {
  Buffer<int> out(96);
  run(return_early, 1, 96, 0, out.data(), 70);
  for (int t = 0; t < 70; ++t) expect_equal(out[t], 7000 + (t < 64 ? 32 : 6), "thread", t);
}

template <class T>
__global__ void shuffle_all(T* up, T* down, T* exchanged, T* indexed, int width) {
  const int thread = int(threadIdx.x), lane = thread % 32;
  up[thread] = __shfl_up_sync(kFullWarp, T(thread), 3, width);
  down[thread] = __shfl_down_sync(kFullWarp, T(thread), 3, width);
  exchanged[thread] = __shfl_xor_sync(kFullWarp, T(thread), 5, width);
  indexed[thread] = __shfl_sync(kFullWarp, T(thread), lane + 3, width);
}
template <class T>
void shuffles_of() {
  for (const int width : {2, 4, 8, 16, 32}) {
    Buffer<T> up(64), down(64), exchanged(64), indexed(64);
    run(shuffle_all<T>, 1, 64, 0, up.data(), down.data(), exchanged.data(), indexed.data(), width);
    for (int i = 0; i < 64; ++i) {
      const int lane = i % 32, warp = i - lane, first = lane / width * width, last = first + width - 1;
      const auto inside = [&](int source) { return T(warp + (source >= first && source <= last ? source : lane)); };
      expect_equal(up[i], inside(lane - 3), "up, width", width, "thread", i);
      expect_equal(down[i], inside(lane + 3), "down, width", width, "thread", i);
      // An exchange with a lower segment does work; only a higher one is out of reach.
      expect_equal(exchanged[i], T(warp + ((lane ^ 5) <= last ? lane ^ 5 : lane)), "xor, width", width, "thread", i);
      expect_equal(indexed[i], T(warp + first + (lane + 3) % width), "index, width", width, "thread", i);
    }
  }
}
void shuffles() {
  shuffles_of<int>();
  shuffles_of<float>();
  shuffles_of<double>();
}

// Each half of a warp shuffles by itself, a different number of times.
__global__ void shuffle_halves(int* out) {
  int value = int(threadIdx.x);
  if (threadIdx.x < 16)
    for (int k = 0; k < 3; ++k) value += __shfl_xor_sync(0x0000ffffu, value, 1);
  else
    for (int k = 0; k < 5; ++k) value += __shfl_xor_sync(0xffff0000u, value, 2);
  __syncwarp();
  out[threadIdx.x] = value;
}
void sub_warp_masks() {
  Buffer<int> out(32);
  run(shuffle_halves, 1, 32, 0, out.data());
  for (int lane = 0; lane < 16; ++lane) expect_equal(out[lane], 4 * (lane + (lane ^ 1)), "lane", lane);
  for (int lane = 16; lane < 32; ++lane) expect_equal(out[lane], 16 * (lane + (lane ^ 2)), "lane", lane);
}

__global__ void vote_in_warp(unsigned* ballot, int* any, int* all) {
  const unsigned thread = threadIdx.x;
  ballot[thread] = __ballot_sync(kFullWarp, thread % 2);
  any[thread] = (__any_sync(kFullWarp, thread == 35) != 0) * 10 + (__any_sync(kFullWarp, thread == 99) != 0);
  all[thread] = (__all_sync(kFullWarp, thread < 32) != 0) * 10 + (__all_sync(kFullWarp, thread < 99) != 0);
}
void votes() {  // the second warp has 8 lanes
  Buffer<unsigned> ballot(40);
  Buffer<int> any(40), all(40);
  run(vote_in_warp, 1, 40, 0, ballot.data(), any.data(), all.data());
  for (int t = 0; t < 40; ++t) {
    expect_equal(ballot[t], t < 32 ? 0xaaaaaaaau : 0xaau, "ballot of thread", t);
    expect_equal(any[t], t < 32 ? 0 : 10, "any of thread", t);
    expect_equal(all[t], t < 32 ? 11 : 1, "all of thread", t);
  }
}

template <class T>
__global__ void match_lanes(unsigned* out) {
  out[threadIdx.x] = __match_any_sync(kFullWarp, T(threadIdx.x % 3));
}
void match() {
  Buffer<unsigned> narrow(32), wide(32);
  run(match_lanes<int>, 1, 32, 0, narrow.data());
  run(match_lanes<unsigned long long>, 1, 32, 0, wide.data());
  const unsigned expected[3] = {0x49249249u, 0x92492492u, 0x24924924u};
  for (int lane = 0; lane < 32; ++lane) {
    expect_equal(narrow[lane], expected[lane % 3], "lane", lane);
    expect_equal(wide[lane], expected[lane % 3], "lane", lane);
  }
}

__global__ void reduce_lanes(unsigned* unsigned_out, int* signed_out) {
  const unsigned v = threadIdx.x * 2654435761u;
  const unsigned results[] = {__reduce_add_sync(kFullWarp, v),
                              __reduce_min_sync(kFullWarp, v),
                              __reduce_max_sync(kFullWarp, v),
                              __reduce_and_sync(kFullWarp, v | 0x11u),
                              __reduce_or_sync(kFullWarp, v & 0xff00ffu),
                              __reduce_xor_sync(kFullWarp, v)};
  const int signed_results[] = {__reduce_add_sync(kFullWarp, int(v)), __reduce_min_sync(kFullWarp, int(v)),
                                __reduce_max_sync(kFullWarp, int(v))};
  for (int k = 0; k < 6; ++k) unsigned_out[threadIdx.x * 6 + k] = results[k];
  for (int k = 0; k < 3; ++k) signed_out[threadIdx.x * 3 + k] = signed_results[k];
}
void reductions() {
  Buffer<unsigned> out(32 * 6);
  Buffer<int> signed_out(32 * 3);
  run(reduce_lanes, 1, 32, 0, out.data(), signed_out.data());
  unsigned sum = 0, low = ~0u, high = 0, both = ~0u, either = 0, odd = 0;
  int signed_low = INT32_MAX, signed_high = INT32_MIN;
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned v = lane * 2654435761u;
    sum += v, both &= v | 0x11u, either |= v & 0xff00ffu, odd ^= v;
    low = v < low ? v : low, high = v > high ? v : high;
    signed_low = int(v) < signed_low ? int(v) : signed_low, signed_high = int(v) > signed_high ? int(v) : signed_high;
  }
  const unsigned expected[] = {sum, low, high, both, either, odd};
  const int signed_expected[] = {int(sum), signed_low, signed_high};
  for (int i = 0; i < 32 * 6; ++i) expect_equal(out[i], expected[i % 6], "unsigned reduction", i % 6);
  for (int i = 0; i < 32 * 3; ++i) expect_equal(signed_out[i], signed_expected[i % 3], "signed reduction", i % 3);
}

}  // namespace

std::vector<Case> thread_cases() {
  return {{"geometry", geometry},
          {"block_barrier", block_barrier},
          {"block_votes", block_votes},
          {"early_return", early_return},
          {"shuffles", shuffles},
          {"sub_warp_masks", sub_warp_masks},
          {"votes", votes},
          {"match", match},
          {"reductions", reductions}};
}
