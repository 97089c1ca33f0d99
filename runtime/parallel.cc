#include "runtime/parallel.h"

#include <algorithm>
#include <chrono>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

ThreadTeam::ThreadTeam(int threads) {
  workers_.reserve(static_cast<size_t>(threads - 1));
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { Work(); });
  } catch (const std::system_error&) {
    // A limit on threads: those that exist do the work.
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
    body(0, items);
    return;
  }
  body_ = &body;
  items_ = items;
  grain_ = grain;
  ranges_ = ranges;
  undone_.store(ranges, std::memory_order_relaxed);
  untaken_.store(ranges, std::memory_order_release);
  ++calls_;
  calls_.notify_all();
  while (RunOneRange()) {
  }
  const auto done = [this] { return undone_.load(std::memory_order_acquire) == 0; };
  while (!SpinUntil(done)) {
    const uint32_t ends = ends_.load();
    if (done()) break;
    ends_.wait(ends);
  }
}

// Takes a range, if there is one left, and runs it.
bool ThreadTeam::RunOneRange() {
  int64_t untaken = untaken_.load(std::memory_order_relaxed);
  do {
    if (untaken == 0) return false;
  } while (!untaken_.compare_exchange_weak(untaken, untaken - 1, std::memory_order_acquire,
                                           std::memory_order_relaxed));
  const int64_t range = ranges_ - untaken;
  (*body_)(range * grain_, std::min(items_, (range + 1) * grain_));
  if (undone_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    ++ends_;
    ends_.notify_one();
  }
  return true;
}

void ThreadTeam::Work() {
  while (!stop_) {
    const uint32_t calls = calls_.load();
    while (RunOneRange()) {
    }
    if (SpinUntil([&] { return stop_ || calls_.load(std::memory_order_relaxed) != calls; })) {
      continue;
    }
    calls_.wait(calls);
  }
}

}  // namespace sluice
