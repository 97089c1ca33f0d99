// Logits of many rows, whose product with the head is made part by part.
#include <algorithm>
#include <atomic>

#include "formats/checked.h"
#include "runtime/forward.h"

namespace sluice {
namespace {

// Tiles that a thread takes at a time, of products with many tokens: as in forward_steps.cc.
int64_t TilesAtATime(int64_t tiles, int threads) {
  return std::clamp<int64_t>(tiles / (8 * threads) / 2 * 2, 2, 16);
}

}  // namespace

Status Forward::LogitsInParts(int64_t first, int64_t count, std::span<float> memory,
                              const LogitsPartCallback& on_part) {
  // A tile of the head for each row must fit; what a device holds does not stream.
  const int64_t most_rows = scratch_ ? kLogitRows : config_.vocab_size;
  for (int64_t done = 0; done < count; done += most_rows) {
    const int64_t rows = std::min(most_rows, count - done);
    const auto on_row = [&](int64_t row, int64_t first_id, std::span<const float> logits) {
      return on_part(done + row, first_id, logits);
    };
    if (scratch_) {
      if (Status s = Logits(first + done, rows, memory.data()); !s.ok()) return s;
      const auto logits = memory.first(static_cast<size_t>(rows * config_.vocab_size));
      if (Status s = HandOut(logits, rows, 0, on_row); !s.ok()) return s;
      continue;
    }
    const auto begin = Trace::Clock::now();
    const Group& head = groups_.back();
    Result<WeightLease> lease = store_->Acquire(head.id);
    if (!lease.ok()) return lease.status();
    const Pass pass = {head, *lease, rows, rows, first + done, nullptr};
    activations_.quantized_content.reset();  // of other rows of kHidden
    if (Status s = RunSteps(pass); !s.ok()) return s;
    if (Status s = HeadInParts(pass, memory, on_row); !s.ok()) return s;
    if (Status s = TraceGroup(head, begin, rows); !s.ok()) return s;
  }
  return Status();
}

Status Forward::HeadInParts(const Pass& pass, std::span<float> memory,
                            const LogitsPartCallback& on_part) {
  const int64_t most_tiles = static_cast<int64_t>(memory.size()) / (pass.tokens * kTileRows);
  for (const WeightPart& part : pass.lease.Parts(head_)) {
    const auto num_tiles = static_cast<int64_t>(part.num_tiles);
    for (int64_t begin = 0; begin < num_tiles; begin += most_tiles) {
      const int64_t end = std::min(begin + most_tiles, num_tiles);
      const int64_t ids =
          std::min(end * kTileRows, static_cast<int64_t>(part.row_count)) - begin * kTileRows;
      if (Status s = MultiplyHead(pass, part, begin, end, memory.data(), ids); !s.ok()) return s;
      SoftcapLogits(memory.data(), pass.tokens * ids);
      const int64_t first_id = static_cast<int64_t>(part.row_begin) + begin * kTileRows;
      const auto logits = memory.first(static_cast<size_t>(pass.tokens * ids));
      if (Status s = HandOut(logits, pass.tokens, first_id, on_part); !s.ok()) return s;
    }
    pass.lease.Done(part);
  }
  return Status();
}

Status Forward::MultiplyHead(const Pass& pass, const WeightPart& part, int64_t tile_begin,
                             int64_t tile_end, float* out, int64_t stride) {
  const TileLayout& layout = store_->file().tensors()[head_].layout;
  const Buffer in = description_.head_input;
  const auto cols = static_cast<int64_t>(layout.cols);
  QuantizedActivations xq = {};
  const bool quantized = ops_->activations(layout.type) == ActivationForm::kQuantized;
  if (quantized) {
    const int64_t group = ActivationGroup(layout.type);
    Quantize(pass, in, cols, group, pass.tokens);
    xq = activations_.Quantized(cols, group);
  }
  const Result<const std::byte*> tiles = pass.lease.Take(part);
  if (!tiles.ok()) return tiles.status();
  const int64_t count = tile_end - tile_begin;
  team_->For(count, TilesAtATime(count, team_->threads()), [&](int64_t begin, int64_t end) {
    ops_->matmul({.layout = &layout,
                  .tiles = *tiles + static_cast<uint64_t>(tile_begin + begin) * layout.tile_bytes,
                  .num_tiles = end - begin,
                  .rows = std::min(end * kTileRows, stride) - begin * kTileRows,
                  .x = InputOf(pass, in),
                  .x_stride = activations_.width(in),
                  .xq = quantized ? &xq : nullptr,
                  .tokens = pass.tokens,
                  .bias = nullptr,
                  .add_to_y = false,
                  .y = out + begin * kTileRows,
                  .y_stride = stride,
                  .block_begin = 0,
                  .block_end = static_cast<int64_t>(CeilDiv(layout.padded_cols, kBlockChannels))},
                 compute_.handle());
  });
  return Status();
}

void Forward::SoftcapLogits(float* logits, int64_t values) {
  if (description_.logit_softcap == 0) return;
  team_->For(values, RangeOf(values), [&](int64_t begin, int64_t end) {
    ops_->softcap({.x = logits, .cap = description_.logit_softcap, .begin = begin, .end = end},
                  compute_.handle());
  });
}

Status Forward::HandOut(std::span<const float> logits, int64_t rows, int64_t first_id,
                        const LogitsPartCallback& on_part) {
  const size_t ids = logits.size() / static_cast<size_t>(rows);
  std::atomic<bool> ended = false;
  team_->For(rows, HostRangeOf(rows), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end && !ended; ++row) {
      if (!on_part(row, first_id, logits.subspan(static_cast<size_t>(row) * ids, ids)))
        ended = true;
    }
  });
  return ended ? Status(ErrorCode::kCancelled, "the evaluation was cancelled") : Status();
}

}  // namespace sluice
