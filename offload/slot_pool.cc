#include "offload/slot_pool.h"

#include <algorithm>
#include <cassert>

namespace sluice {

SlotPool::SlotPool(uint64_t ring_bytes, std::vector<StreamedPiece> cycle)
    : ring_bytes_(ring_bytes),
      cycle_(std::move(cycle)),
      skipped_(cycle_.size(), false),
      slot_of_(cycle_.size(), nullptr) {
  for (size_t i = 0; i < cycle_.size(); ++i) {
    assert(cycle_[i].size_bytes <= ring_bytes_);
    index_of_[cycle_[i].piece] = i;
    cycle_bytes_ += cycle_[i].size_bytes;
    const auto range = group_range_.try_emplace(cycle_[i].group, i, i).first;
    range->second.second = i + 1;
  }
}

std::optional<SlotPool::Read> SlotPool::NextRead() {
  for (size_t step = 0; step < cycle_.size(); ++step) {
    const size_t index = (cursor_ + step) % cycle_.size();
    if (skipped_[index] || slot_of_[index] != nullptr || Revive(index)) continue;
    const StreamedPiece& piece = cycle_[index];
    const std::optional<uint64_t> offset = Place(piece.size_bytes);
    if (!offset) return std::nullopt;
    slots_.push_back({index, *offset, State::kReading, false, false});
    slot_of_[index] = &slots_.back();
    cursor_ = (index + 1) % cycle_.size();
    return Read{piece.piece, *offset, piece.size_bytes};
  }
  return std::nullopt;  // all that is wanted is in the ring
}

// Room behind the newest slot, or from the ring's beginning when its end is too near.
std::optional<uint64_t> SlotPool::Place(uint32_t size_bytes) const {
  if (slots_.empty()) return 0;
  const uint64_t oldest = slots_.front().offset_bytes;
  const Slot& newest = slots_.back();
  const uint64_t end = newest.offset_bytes + cycle_[newest.index].size_bytes;
  if (newest.offset_bytes < oldest) {  // wrapped round
    if (end + size_bytes <= oldest) return end;
    return std::nullopt;
  }
  if (end + size_bytes <= ring_bytes_) return end;
  if (size_bytes <= oldest) return 0;
  return std::nullopt;
}

bool SlotPool::Arrived(PieceId piece, bool ok) {
  const size_t index = IndexOf(piece);
  const auto slot = std::find_if(slots_.begin(), slots_.end(), [index](const Slot& s) {
    return s.index == index && s.state == State::kReading;
  });
  assert(slot != slots_.end());
  slot->state = ok ? State::kReady : State::kFailed;
  const bool wanted = !slot->gone;
  Reclaim();
  return wanted;
}

SlotPool::Found SlotPool::Find(PieceId piece) const {
  const Slot* slot = slot_of_[IndexOf(piece)];
  return slot == nullptr ? Found() : Found{slot->state, slot->offset_bytes};
}

void SlotPool::Take(PieceId piece) {
  Slot* slot = slot_of_[IndexOf(piece)];
  assert(slot != nullptr && slot->state == State::kReady);
  slot->taken = true;
}

void SlotPool::Done(PieceId piece) {
  Slot* slot = slot_of_[IndexOf(piece)];
  if (slot == nullptr || !slot->taken) return;
  Forget(slot);
  Reclaim();
}

void SlotPool::Fail(PieceId piece) {
  Slot* slot = slot_of_[IndexOf(piece)];
  if (slot != nullptr && slot->taken) slot->state = State::kFailed;
}

void SlotPool::Acquire(GroupId group) {
  const auto range = group_range_.find(group);
  if (range == group_range_.end()) return;
  const size_t first = range->second.first;
  if (slot_of_[first] != nullptr && slot_of_[first]->state == State::kFailed) {
    Forget(slot_of_[first]);
  }
  if (slot_of_[first] == nullptr && !Revive(first)) {
    DropUntaken();
    cursor_ = first;
    return;
  }
  for (Slot& slot : slots_) {
    if (&slot == slot_of_[first]) break;
    if (!slot.taken && !slot.gone) {
      dropped_bytes_ += cycle_[slot.index].size_bytes;
      Forget(&slot);
    }
  }
  Reclaim();
}

void SlotPool::Release(GroupId group) {
  const auto range = group_range_.find(group);
  if (range == group_range_.end()) return;
  for (size_t i = range->second.first; i < range->second.second; ++i) {
    Slot* slot = slot_of_[i];
    // What was read ahead for the next pass over this group stays.
    if (slot != nullptr && (slot->taken || slot->state == State::kFailed)) Forget(slot);
  }
  Reclaim();
}

void SlotPool::Demand(PieceId piece) {
  const size_t index = IndexOf(piece);
  if (slot_of_[index] != nullptr || Revive(index)) return;
  DropUntaken();
  cursor_ = index;
}

void SlotPool::SetSkipped(GroupId group, bool skipped) {
  const auto range = group_range_.find(group);
  if (range == group_range_.end()) return;
  for (size_t i = range->second.first; i < range->second.second; ++i) skipped_[i] = skipped;
}

uint64_t SlotPool::used_bytes() const {
  if (slots_.empty()) return 0;
  const Slot& newest = slots_.back();
  const uint64_t begin = slots_.front().offset_bytes;
  const uint64_t end = newest.offset_bytes + cycle_[newest.index].size_bytes;
  return newest.offset_bytes < begin ? ring_bytes_ - begin + end : end - begin;
}

// A piece that nobody wanted, and whose memory nothing has overwritten: wanted again.
bool SlotPool::Revive(size_t index) {
  for (Slot& slot : slots_) {
    if (slot.index != index || !slot.gone || slot.state == State::kFailed) continue;
    slot.gone = slot.taken = false;
    slot_of_[index] = &slot;
    return true;
  }
  return false;
}

void SlotPool::Forget(Slot* slot) {
  slot->gone = true;
  slot_of_[slot->index] = nullptr;
}

void SlotPool::DropUntaken() {
  for (Slot& slot : slots_) {
    if (slot.taken || slot.gone) continue;
    dropped_bytes_ += cycle_[slot.index].size_bytes;
    Forget(&slot);
  }
  Reclaim();
}

// Slots go from both ends: the oldest as the pass goes on, the newest when reading turns elsewhere.
void SlotPool::Reclaim() {
  const auto free = [](const Slot& slot) { return slot.gone && slot.state != State::kReading; };
  while (!slots_.empty() && free(slots_.front())) slots_.pop_front();
  while (!slots_.empty() && free(slots_.back())) slots_.pop_back();
}

}  // namespace sluice
