#include "cuda_emulation.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "tests/support/cuda_emulation/fiber.h"

namespace sluice::cuda_emulation {
namespace {

struct PendingCopy {
  int group;
  void* to;
  const void* from;  // null: zeros
  size_t size_bytes;
  std::vector<std::byte> met;  // what was there, of a copy before earlier work was waited for
};

struct Thread {
  test::Fiber fiber;
  ThreadPlace place;
  const char* waits_for = nullptr;  // null: can run
  void* value = nullptr;            // what it brought to Together
  bool waited = false;              // for earlier work
  bool fenced = false;
  int copy_group = 0;
  std::vector<PendingCopy> copies;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;  // as many as any block had
  int count = 0;
  int at_barrier = 0;
  bool overlaps = false;
  bool hidden = false;  // earlier work
  int at_earlier_work = 0;
  std::vector<int> at_exchange;  // for each warp
  std::vector<std::byte> shared;
  Thread* current = nullptr;
  Body body = nullptr;
  void (*kernel)() = nullptr;
  const void* args = nullptr;
};

Block block;
Order order = Order::kAscending;
std::vector<LaunchRecord> launches;
LaunchHook before_launch;
LaunchHook after_launch;
std::function<void()> hide_earlier_work;
std::function<void()> show_earlier_work;
std::mt19937_64 shuffle_random(1);

[[noreturn]] void Fail(const char* problem, const char* detail) {
  const ThreadPlace& place = block.current->place;
  std::fprintf(stderr, "CUDA emulation: %s (%s), thread %d of %d, block %lld %lld %lld\n", problem,
               detail, place.thread, place.block_threads, static_cast<long long>(place.block_x),
               static_cast<long long>(place.block_y), static_cast<long long>(place.block_z));
  std::abort();
}

void WaitFor(const char* what) {
  Thread* const self = block.current;
  self->waits_for = what;
  test::Fiber::Pause();
}

std::vector<int64_t> Sequence(int64_t count) {
  std::vector<int64_t> sequence(static_cast<size_t>(count));
  std::iota(sequence.begin(), sequence.end(), 0);
  if (order == Order::kDescending || order == Order::kWarpByWarpDescending)
    std::reverse(sequence.begin(), sequence.end());
  if (order == Order::kShuffled) std::shuffle(sequence.begin(), sequence.end(), shuffle_random);
  return sequence;
}

void ThreadMain() { block.body(block.kernel, block.args); }

// All threads but the running one go on, which wait there.
void Release(const char* what) {
  for (int i = 0; i < block.count; ++i) {
    Thread& thread = *block.threads[static_cast<size_t>(i)];
    if (&thread == block.current) continue;
    if (thread.waits_for == nullptr || std::strcmp(thread.waits_for, what) != 0) {
      Fail("a thread is elsewhere", what);
    }
    thread.waits_for = nullptr;
  }
}

// Lets each of the threads that can run do so until it waits; false if none could.
bool RunReady(std::span<const int64_t> threads) {
  bool any = false;
  for (int64_t i : threads) {
    Thread& thread = *block.threads[static_cast<size_t>(i)];
    if (thread.fiber.ended() || thread.waits_for != nullptr) continue;
    block.current = &thread;
    thread.fiber.Resume();
    any = true;
  }
  return any;
}

void RunBlock(int64_t x, int64_t y, int64_t z) {
  block.at_barrier = 0;
  block.at_earlier_work = 0;
  std::fill(block.at_exchange.begin(), block.at_exchange.end(), 0);
  std::fill(block.shared.begin(), block.shared.end(), std::byte{0xff});
  for (int i = 0; i < block.count; ++i) {
    Thread& thread = *block.threads[static_cast<size_t>(i)];
    thread.place = {i, block.count, x, y, z};
    thread.waits_for = nullptr;
    thread.waited = false;
    thread.fenced = false;
    thread.copy_group = 0;
    thread.copies.clear();
    thread.fiber.Start(ThreadMain);
  }
  const std::vector<int64_t> sequence = Sequence(block.count);
  const bool warp_by_warp = order == Order::kWarpByWarp || order == Order::kWarpByWarpDescending;
  const size_t turn = warp_by_warp ? kWarpThreads : sequence.size();
  for (bool running = true; running;) {
    running = false;
    for (size_t first = 0; first < sequence.size(); first += turn) {
      const auto threads = std::span(sequence).subspan(first, turn);
      while (RunReady(threads)) {
        running = true;
        if (!warp_by_warp) break;
      }
    }
  }
  for (int i = 0; i < block.count; ++i) {
    Thread& thread = *block.threads[static_cast<size_t>(i)];
    block.current = &thread;
    if (!thread.fiber.ended()) Fail("not all threads come", thread.waits_for);
    if (block.overlaps && !thread.waited) Fail("a thread did not come", "WaitForEarlierWork");
  }
}

}  // namespace

void SetOrder(Order new_order) { order = new_order; }
const std::vector<LaunchRecord>& Launches() { return launches; }
void SetLaunchHooks(LaunchHook before, LaunchHook after) {
  before_launch = std::move(before);
  after_launch = std::move(after);
}
void SetEarlierWorkHooks(std::function<void()> hide, std::function<void()> show) {
  hide_earlier_work = std::move(hide);
  show_earlier_work = std::move(show);
}
const ThreadPlace& Place() { return block.current->place; }
std::byte* SharedBytes() { return block.shared.data(); }

void SyncThreads() {
  if (++block.at_barrier < block.count) return WaitFor("SyncThreads");
  block.at_barrier = 0;
  Release("SyncThreads");
}

void WaitForEarlierWork() {
  block.current->waited = true;
  if (!block.hidden) return;
  if (++block.at_earlier_work < block.count) return WaitFor("WaitForEarlierWork");
  Release("WaitForEarlierWork");
  block.hidden = false;
  show_earlier_work();
}

void Together(const char* what, void* value, Combine combine) {
  Thread* const self = block.current;
  const auto warp = static_cast<size_t>(self->place.thread / kWarpThreads);
  self->value = value;
  if (++block.at_exchange[warp] < kWarpThreads) return WaitFor(what);
  block.at_exchange[warp] = 0;
  void* values[kWarpThreads];
  for (size_t lane = 0; lane < kWarpThreads; ++lane) {
    Thread& other = *block.threads[warp * kWarpThreads + lane];
    values[lane] = other.value;
    if (&other == self) continue;
    if (other.waits_for == nullptr || std::strcmp(other.waits_for, what) != 0) {
      Fail("lanes of a warp are at different places", what);
    }
    other.waits_for = nullptr;
  }
  combine(values);
}

uint32_t Ballot(bool predicate) {
  struct Exchange {
    bool predicate;
    uint32_t result;
  } exchange = {predicate, 0};
  Together("Ballot", &exchange, [](void* const* values) {
    uint32_t bits = 0;
    for (int i = 0; i < kWarpThreads; ++i) {
      if (static_cast<Exchange*>(values[i])->predicate) bits |= 1u << i;
    }
    for (int i = 0; i < kWarpThreads; ++i) static_cast<Exchange*>(values[i])->result = bits;
  });
  return exchange.result;
}

void CopyAsync(void* shared, const void* global, size_t size_bytes, bool valid) {
  const auto to = reinterpret_cast<uintptr_t>(shared);
  const auto from = reinterpret_cast<uintptr_t>(global);
  if (to % size_bytes != 0 || (valid && from % size_bytes != 0)) {
    Fail("a misaligned address", "CopyAsync");
  }
  const auto* begin = reinterpret_cast<const std::byte*>(shared);
  if (begin < block.shared.data() || begin + size_bytes > block.shared.data() + block.shared.size())
    Fail("the target is not in shared memory", "CopyAsync");
  std::memset(shared, 0xff, size_bytes);
  Thread& self = *block.current;
  PendingCopy copy = {self.copy_group, shared, valid ? global : nullptr, size_bytes, {}};
  if (block.hidden && valid) {
    const auto* from_bytes = static_cast<const std::byte*>(global);
    copy.met.assign(from_bytes, from_bytes + size_bytes);
  }
  self.copies.push_back(std::move(copy));
}

void ThreadFence() { block.current->fenced = true; }

int AtomicAdd(int* address, int value) {
  const auto* place = reinterpret_cast<const std::byte*>(address);
  if (place < block.shared.data() || place >= block.shared.data() + block.shared.size()) {
    for (int i = 0; i < block.count; ++i) {
      if (!block.threads[static_cast<size_t>(i)]->fenced) {
        Fail("a thread of the block has not fenced", "AtomicAdd");
      }
    }
  }
  const int before = *address;
  *address += value;
  return before;
}

void CommitCopies() { ++block.current->copy_group; }

void WaitForCopies(int pending) {
  Thread& self = *block.current;
  size_t done = 0;
  for (; done < self.copies.size() && self.copies[done].group < self.copy_group - pending; ++done) {
    const PendingCopy& copy = self.copies[done];
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, copy.size_bytes);
    } else {
      std::memcpy(copy.to, copy.met.empty() ? copy.from : copy.met.data(), copy.size_bytes);
    }
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<ptrdiff_t>(done));
}

namespace {

struct MatrixLoad {
  const void* row;
  uint32_t* out;
};

template <bool kTransposed>
void LoadTogether(void* const* values) {
  for (int lane = 0; lane < kWarpThreads; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint32_t word = 0;
      for (int half = 0; half < 2; ++half) {
        const int row = kTransposed ? 2 * (lane % 4) + half : lane / 4;
        const int column = kTransposed ? lane / 4 : 2 * (lane % 4) + half;
        const void* from = static_cast<MatrixLoad*>(values[8 * matrix + row])->row;
        uint16_t bits;
        std::memcpy(&bits, static_cast<const std::byte*>(from) + 2 * column, 2);
        word |= uint32_t{bits} << (16 * half);
      }
      static_cast<MatrixLoad*>(values[lane])->out[matrix] = word;
    }
  }
}

void CheckRow(const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) Fail("a misaligned address", "LoadMatrices");
}

// Byte `index` of a fragment's registers.
int32_t Byte(uint32_t word, int index) { return static_cast<int32_t>(word >> (8 * index)) & 0xff; }

}  // namespace

void LoadMatrices(uint32_t (&out)[4], const void* row) {
  CheckRow(row);
  MatrixLoad load = {row, out};
  Together("LoadMatrices", &load, LoadTogether<false>);
}

void LoadMatricesTransposed(uint32_t (&out)[4], const void* row) {
  CheckRow(row);
  MatrixLoad load = {row, out};
  Together("LoadMatricesTransposed", &load, LoadTogether<true>);
}

uint32_t Transposed(uint32_t halves) {
  struct Exchange {
    uint32_t before, after;
  } exchange = {halves, 0};
  Together("Transposed", &exchange, [](void* const* values) {
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      uint32_t word = 0;
      for (int half = 0; half < 2; ++half) {
        // Row lane / 4 of the result is that column of the matrix.
        const int row = 2 * (lane % 4) + half;
        const int column = lane / 4;
        const uint32_t from = static_cast<Exchange*>(values[4 * row + column / 2])->before;
        word |= (from >> (16 * (column % 2)) & 0xffff) << (16 * half);
      }
      static_cast<Exchange*>(values[lane])->after = word;
    }
  });
  return exchange.after;
}

// The three products below first collect the matrices from the lanes' fragments, as the tables of
// the PTX ISA have them, then multiply.

void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lanes {
    int32_t* c;
    const uint32_t* a;
    uint32_t b[2];
  } mine = {c, a, {b0, b1}};
  Together("MmaU8S8", &mine, [](void* const* values) {
    int32_t a_rows[16][32];
    int32_t b_columns[8][32];
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const auto* lanes = static_cast<Lanes*>(values[lane]);
      for (int i = 0; i < 16; ++i) {
        const int row = lane / 4 + (i / 4 % 2 == 0 ? 0 : 8);
        a_rows[row][lane % 4 * 4 + i % 4 + (i < 8 ? 0 : 16)] = Byte(lanes->a[i / 4], i % 4);
      }
      for (int i = 0; i < 8; ++i) {
        b_columns[lane / 4][lane % 4 * 4 + i % 4 + (i < 4 ? 0 : 16)] =
            static_cast<int8_t>(Byte(lanes->b[i / 4], i % 4));
      }
    }
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const auto* lanes = static_cast<Lanes*>(values[lane]);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8);
        const int column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 32; ++k) lanes->c[i] += a_rows[row][k] * b_columns[column][k];
      }
    }
  });
}

void MmaF16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lanes {
    float* c;
    const uint32_t* a;
    uint32_t b[2];
  } mine = {c, a, {b0, b1}};
  Together("MmaF16", &mine, [](void* const* values) {
    double a_rows[16][16];
    double b_columns[8][16];
    const auto half = [](uint32_t word, int index) {
      return double{F16ToFloat(static_cast<uint16_t>(word >> (16 * index)))};
    };
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const auto* lanes = static_cast<Lanes*>(values[lane]);
      for (int i = 0; i < 8; ++i) {
        const int row = lane / 4 + (i / 2 % 2 == 0 ? 0 : 8);
        a_rows[row][lane % 4 * 2 + i % 2 + (i < 4 ? 0 : 8)] = half(lanes->a[i / 2], i % 2);
      }
      for (int i = 0; i < 4; ++i) {
        b_columns[lane / 4][lane % 4 * 2 + i % 2 + (i < 2 ? 0 : 8)] = half(lanes->b[i / 2], i % 2);
      }
    }
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const auto* lanes = static_cast<Lanes*>(values[lane]);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8);
        const int column = lane % 4 * 2 + i % 2;
        double sum = lanes->c[i];
        for (int k = 0; k < 16; ++k) sum += a_rows[row][k] * b_columns[column][k];
        lanes->c[i] = static_cast<float>(sum);
      }
    }
  });
}

void MmaTf32(float (&c)[4], const float (&a)[4], float b0, float b1) {
  struct Lanes {
    float* c;
    const float* a;
    float b[2];
  } mine = {c, a, {b0, b1}};
  Together("MmaTf32", &mine, [](void* const* values) {
    double a_rows[16][8];
    double b_columns[8][8];
    // The tensor cores do not read the lower bits.
    const auto tf32 = [](float value) {
      return double{std::bit_cast<float>(std::bit_cast<uint32_t>(value) & ~0x1fffu)};
    };
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const auto* lanes = static_cast<Lanes*>(values[lane]);
      for (int i = 0; i < 4; ++i) {
        a_rows[lane / 4 + (i % 2 == 0 ? 0 : 8)][lane % 4 + (i < 2 ? 0 : 4)] = tf32(lanes->a[i]);
      }
      for (int i = 0; i < 2; ++i) b_columns[lane / 4][lane % 4 + 4 * i] = tf32(lanes->b[i]);
    }
    for (int lane = 0; lane < kWarpThreads; ++lane) {
      const auto* lanes = static_cast<Lanes*>(values[lane]);
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8);
        const int column = lane % 4 * 2 + i % 2;
        double sum = lanes->c[i];
        for (int k = 0; k < 8; ++k) sum += a_rows[row][k] * b_columns[column][k];
        lanes->c[i] = static_cast<float>(sum);
      }
    }
  });
}

float ToTf32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return value;
  return std::bit_cast<float>((bits + 0x1000u) & ~0x1fffu);
}

void RunGrid(const LaunchRecord& record, const Grid& grid, CUstream_st* stream, Body body,
             void (*kernel)(), const void* args) {
  const auto [name, threads, shared_bytes, overlaps] = record;
  constexpr size_t kMostSharedBytes = 99 << 10;  // of a block on sm_86, 89 and 120
  if (threads <= 0 || threads % kWarpThreads != 0 || threads > 1024 || grid.y > 65535 ||
      grid.z > 65535 || grid.x > 0x7fffffff || shared_bytes > kMostSharedBytes) {
    std::fprintf(stderr, "CUDA emulation: no GPU would start %d threads with %zu bytes\n", threads,
                 shared_bytes);
    std::abort();
  }
  const bool known = std::any_of(launches.begin(), launches.end(), [&](const LaunchRecord& other) {
    return other.kernel == record.kernel && other.threads == record.threads &&
           other.shared_bytes == record.shared_bytes;
  });
  if (!known) launches.push_back(record);
  if (before_launch) before_launch(stream);
  while (block.threads.size() < static_cast<size_t>(threads)) {
    block.threads.push_back(std::make_unique<Thread>());
  }
  block.count = threads;
  block.at_exchange.assign(static_cast<size_t>(threads / kWarpThreads), 0);
  // A fresh allocation of the very size, so that the address sanitizer sees what lies beyond.
  block.shared = std::vector<std::byte>(shared_bytes);
  block.overlaps = overlaps;
  block.hidden = overlaps && hide_earlier_work != nullptr;
  if (block.hidden) hide_earlier_work();
  block.body = body;
  block.kernel = kernel;
  block.args = args;
  for (int64_t index : Sequence(grid.x * grid.y * grid.z)) {
    RunBlock(index % grid.x, index / grid.x % grid.y, index / (grid.x * grid.y));
  }
  if (after_launch) after_launch(stream);
}

}  // namespace sluice::cuda_emulation
