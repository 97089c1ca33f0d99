#include "runtime/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "offload/processors.h"

namespace sluice {
namespace {

// Longer than the gaps between the operations of a pass, shorter than a time slice by far.
constexpr auto kSpin = std::chrono::microseconds(50);
constexpr int kPausesPerLook = 32;

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Spins until done() or the time is over; returns done().
template <typename Done>
bool SpinUntil(const Done& done) {
  if (done()) return true;
  const auto end = std::chrono::steady_clock::now() + kSpin;
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (done()) return true;
      Pause();
    }
  }
  return done();
}

}  // namespace

ThreadTeam::ThreadTeam(int threads) : shares_(static_cast<size_t>(threads)) {
  workers_.reserve(shares_.size() - 1);
  try {
    for (size_t i = 1; i < shares_.size(); ++i) workers_.emplace_back([this, i] { Work(i); });
  } catch (const std::system_error&) {
    // A limit on threads: those that exist do the work.
  }
  BindWorkers();
}

// What fails here costs speed alone.
void ThreadTeam::BindWorkers() {
  const std::vector<std::vector<int>> cores = CoresOf(AllowedProcessors());
  if (cores.size() != shares_.size() || UsableCores() != threads()) return;
  for (size_t i = 0; i < workers_.size(); ++i) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int cpu : cores[i + 1]) CPU_SET(cpu, &set);
    (void)pthread_setaffinity_np(workers_[i].native_handle(), sizeof(set), &set);
  }
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  ++calls_;
  calls_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadTeam::For(int64_t items, int64_t grain, const Body& body) {
  if (items <= 0) return;
  const int64_t ranges = (items + grain - 1) / grain;
  if (ranges == 1 || workers_.empty()) {
    for (int64_t begin = 0; begin < items; begin += grain) {
      body(begin, std::min(items, begin + grain));
    }
    return;
  }
  body_ = &body;
  items_ = items;
  grain_ = grain;
  undone_.store(ranges, std::memory_order_relaxed);
  // Before any of them can be taken: who finds one looks for others.
  const int64_t team = threads();
  for (int64_t i = 0; i < team; ++i) {
    shares_[static_cast<size_t>(i)].end = ranges * (i + 1) / team;
  }
  for (int64_t i = 0; i < team; ++i) {
    const int64_t count = ranges * (i + 1) / team - ranges * i / team;
    shares_[static_cast<size_t>(i)].untaken.store(count, std::memory_order_release);
  }
  ++calls_;
  calls_.notify_all();
  while (RunOneRange(0)) {
  }
  const auto done = [this] { return undone_.load(std::memory_order_acquire) == 0; };
  while (!SpinUntil(done)) {
    const uint32_t ends = ends_.load();
    if (done()) break;
    ends_.wait(ends);
  }
}

// Takes a range, of this thread's if there is one left, and runs it.
bool ThreadTeam::RunOneRange(size_t thread) {
  for (size_t i = 0; i < shares_.size(); ++i) {
    if (RunOneRangeOf(&shares_[(thread + i) % shares_.size()])) return true;
  }
  return false;
}

bool ThreadTeam::RunOneRangeOf(Share* share) {
  int64_t untaken = share->untaken.load(std::memory_order_relaxed);
  do {
    if (untaken == 0) return false;
  } while (!share->untaken.compare_exchange_weak(untaken, untaken - 1, std::memory_order_acquire,
                                                 std::memory_order_relaxed));
  const int64_t range = share->end - untaken;
  (*body_)(range * grain_, std::min(items_, (range + 1) * grain_));
  if (undone_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    ++ends_;
    ends_.notify_one();
  }
  return true;
}

void ThreadTeam::Work(size_t thread) {
  while (!stop_) {
    const uint32_t calls = calls_.load();
    while (RunOneRange(thread)) {
    }
    if (SpinUntil([&] { return stop_ || calls_.load(std::memory_order_relaxed) != calls; })) {
      continue;
    }
    calls_.wait(calls);
  }
}

}  // namespace sluice
