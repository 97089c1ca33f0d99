#include "runtime/pass_graphs.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/cuda/support.h"

namespace sluice {
namespace {

constexpr int64_t kMostTokens = 64;

}  // namespace

std::optional<PassShape> RecordableShape(int64_t tokens, int64_t longest_run,
                                         int64_t longest_length, int64_t context_tokens) {
  if (tokens > kMostTokens || longest_run != 1) return std::nullopt;
  const int64_t partitions = (longest_length + kGpuAttentionPartition - 1) / kGpuAttentionPartition;
  const auto rounded = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(partitions)));
  return PassShape{
      tokens, std::max(longest_length, std::min(rounded * kGpuAttentionPartition, context_tokens))};
}

Status PassGraphs::Run(const PassShape& shape, const std::function<Status()>& layers) {
  ++passes_;
  const bool steady = std::exchange(last_, shape) == shape;
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.shape == shape; });
  Entry* entry = found == entries_.end() ? nullptr : &*found;
  if (entry == nullptr && steady && enabled_) {
    const Result<Entry*> recorded = Record(shape, layers);
    if (!recorded.ok()) return recorded.status();
    entry = *recorded;
  }
  if (entry == nullptr) return layers();
  entry->last_use = passes_;
  return stream_->Launch(entry->graph);
}

Result<PassGraphs::Entry*> PassGraphs::Record(const PassShape& shape,
                                              const std::function<Status()>& layers) {
  if (entries_.size() == kMostGraphs) DropOldest();
  const uint64_t room = device_->room_bytes();
  if (room - std::min(room, taken_bytes_) < kRoomBytes) return nullptr;
  const Result<DeviceMemory> before = device_->Memory();
  if (!before.ok()) return before.status();
  enabled_ = false;  // until it is known to work
  if (!stream_->BeginCapture().ok()) return nullptr;
  const Status asked = layers();
  Result<DeviceGraph> graph = stream_->EndCapture();
  if (!asked.ok()) {
    enabled_ = graph.ok();
    return asked;
  }
  if (!graph.ok()) return nullptr;
  const Result<DeviceMemory> after = device_->Memory();
  if (!after.ok()) return after.status();
  enabled_ = true;
  const uint64_t taken = before->free_bytes - std::min(before->free_bytes, after->free_bytes);
  taken_bytes_ += taken;
  entries_.push_back({shape, std::move(*graph), taken, 0});
  return &entries_.back();
}

void PassGraphs::DropOldest() {
  const auto oldest =
      std::min_element(entries_.begin(), entries_.end(),
                       [](const Entry& a, const Entry& b) { return a.last_use < b.last_use; });
  taken_bytes_ -= oldest->taken_bytes;
  entries_.erase(oldest);
}

}  // namespace sluice
