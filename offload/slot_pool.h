// The state of the pieces that stream through a ring of memory. Pure: no thread, no clock, no I/O,
// so that every interleaving is a plain test.
//
//   absent --NextRead--> reading --Arrived--> ready --Take--> taken --Done or Release--> absent
//                           |                   |
//                           +--Arrived(failed)--+--> failed --Release--> absent
//
// Reads follow the order of use, round the end of the cycle into the next pass: the drive
// never waits for a pass to begin. The ring gives out memory in that order and takes it back in
// any; what nobody took can be dropped when the pass turns out to go on elsewhere.
#ifndef SLUICE_OFFLOAD_SLOT_POOL_H_
#define SLUICE_OFFLOAD_SLOT_POOL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "formats/sluice_file.h"

namespace sluice {

struct StreamedPiece {
  PieceId piece = 0;
  GroupId group = 0;
  uint32_t size_bytes = 0;
};

class SlotPool {
 public:
  enum class State : uint8_t { kAbsent, kReading, kReady, kFailed };

  struct Read {
    PieceId piece = 0;
    uint64_t ring_offset_bytes = 0;
    uint32_t size_bytes = 0;
  };

  struct Found {
    State state = State::kAbsent;
    uint64_t ring_offset_bytes = 0;
  };

  // `cycle` holds every streamed piece once, in the order of use; pieces of a group stand together.
  // REQUIRES: no piece is larger than the ring.
  SlotPool(uint64_t ring_bytes, std::vector<StreamedPiece> cycle);

  // The next read, if there is room for it; its piece is reading from now on.
  std::optional<Read> NextRead();
  // The end of a read. A piece that was dropped meanwhile becomes absent. False: it was dropped.
  bool Arrived(PieceId piece, bool ok);

  Found Find(PieceId piece) const;
  // Keeps a ready piece until Done or Release. REQUIRES: Find(piece) is kReady.
  void Take(PieceId piece);
  // The piece is not needed again in this pass.
  void Done(PieceId piece);
  // The bytes of a piece that was taken are damaged: failed until Release.
  void Fail(PieceId piece);

  // The pass goes on with this group: pieces that stand before it and that nobody took are dropped;
  // if its first piece is not on its way, reading goes on there.
  void Acquire(GroupId group);
  // The pass is through with the group: its pieces are absent, or will be when they arrive.
  void Release(GroupId group);
  // An absent piece is waited for: it is read next, in the room of pieces that nobody took.
  void Demand(PieceId piece);

  // Whether reading passes over the group from now on (a pass that wants no logits has no use for
  // the head).
  void SetSkipped(GroupId group, bool skipped);

  uint64_t ring_bytes() const { return ring_bytes_; }
  uint64_t cycle_bytes() const { return cycle_bytes_; }
  // Bytes from the oldest slot to the newest, what was left at the ring's end included.
  uint64_t used_bytes() const;
  // Bytes that were read and dropped without use.
  uint64_t dropped_bytes() const { return dropped_bytes_; }

 private:
  struct Slot {
    size_t index = 0;  // in the cycle
    uint64_t offset_bytes = 0;
    State state = State::kReading;
    bool taken = false;
    // Nobody wants it: its memory is free as soon as no read writes it and no neighbour pins it.
    // Until then the piece can still come back without another read.
    bool gone = false;
  };

  size_t IndexOf(PieceId piece) const { return index_of_.at(piece); }
  std::optional<uint64_t> Place(uint32_t size_bytes) const;
  bool Revive(size_t index);
  void Forget(Slot* slot);
  void DropUntaken();
  void Reclaim();

  uint64_t ring_bytes_;
  uint64_t cycle_bytes_ = 0;
  std::vector<StreamedPiece> cycle_;
  std::unordered_map<PieceId, size_t> index_of_;
  std::unordered_map<GroupId, std::pair<size_t, size_t>> group_range_;  // [begin, end) in the cycle
  std::vector<bool> skipped_;                                           // by index
  size_t cursor_ = 0;                                                   // the next to be read
  std::deque<Slot> slots_;      // in the order of their reads, which is that of their memory
  std::vector<Slot*> slot_of_;  // by index; null: absent
  uint64_t dropped_bytes_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_SLOT_POOL_H_
