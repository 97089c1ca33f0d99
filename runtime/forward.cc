#include "runtime/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/support.h"
#include "kernels/select.h"

namespace sluice {

Forward::Forward(const ModelConfig& config, const ModelDescription& description, WeightStore* store,
                 const OpTable* ops, KvCache* kv_cache, ThreadTeam* team, Activations activations,
                 int64_t context_tokens)
    : config_(config),
      description_(description),
      store_(store),
      ops_(ops),
      kv_cache_(kv_cache),
      team_(team),
      activations_(std::move(activations)) {
  for (const RopeConfig& rope : description_.ropes) {
    rope_frequencies_.push_back(RopeFrequencies(rope, context_tokens));
  }
}

Result<std::unique_ptr<Forward>> Forward::Create(const ModelConfig& config,
                                                 const ModelDescription& description,
                                                 WeightStore* store, const OpTable* ops,
                                                 KvCache* kv_cache, ThreadTeam* team,
                                                 int64_t max_batch_tokens, int64_t context_tokens) {
  Result<Activations> activations = Activations::Create(description, max_batch_tokens);
  if (!activations.ok()) return activations.status();
  std::unique_ptr<Forward> forward(new Forward(config, description, store, ops, kv_cache, team,
                                               std::move(*activations), context_tokens));
  if (Status status = forward->Bind(); !status.ok()) return status;
  forward->TakeAttentionScratch(context_tokens);
  return forward;
}

// Memory for partial results of the longest context's attention, in whichever layer needs most.
void Forward::TakeAttentionScratch(int64_t context_tokens) {
  int64_t most = 0;
  for (const GroupDescription& group : description_.groups) {
    for (const Step& step : group.steps) {
      const auto* attention = std::get_if<AttentionStep>(&step);
      if (attention == nullptr || !ops_->on_device) continue;
      most = std::max(most, GpuAttentionScratch(max_batch_tokens(), attention->num_heads,
                                                attention->head_dim, context_tokens));
    }
  }
  attention_scratch_.resize(static_cast<size_t>(most));
}

// Finds the description's tensors in the file.
Status Forward::Bind() {
  const SluiceFile& file = store_->file();
  for (const GroupDescription& description : description_.groups) {
    Group group;
    group.description = &description;
    for (const TensorRequirement& wanted : description.tensors) {
      const TensorId id = file.Find(wanted.name);
      if (id == kNoIndex) {
        return Status(ErrorCode::kCorrupt,
                      fmt::format("{}: tensor '{}' is missing", file.path(), wanted.name));
      }
      const TensorEntry& tensor = file.tensors()[id];
      const uint32_t tile_rows = wanted.kind == TensorKind::kMatrix ? kTileRows : 1;
      const bool quantized_vector =
          wanted.kind == TensorKind::kVector && tensor.layout.type.quantized();
      if (tensor.layout.rows != wanted.rows || tensor.layout.cols != wanted.cols ||
          tensor.layout.tile_rows != tile_rows || quantized_vector) {
        return Status(ErrorCode::kCorrupt,
                      fmt::format("{}: tensor '{}' is {} x {} {} in tiles of {}; {} x {} in tiles "
                                  "of {} is needed",
                                  file.path(), wanted.name, tensor.layout.rows, tensor.layout.cols,
                                  WeightTypeName(tensor.layout.type), tensor.layout.tile_rows,
                                  wanted.rows, wanted.cols, tile_rows));
      }
      if (!group.tensors.empty() && tensor.group != group.id) {
        return Status(ErrorCode::kCorrupt,
                      fmt::format("{}: tensor '{}' is in group {}, not in {}", file.path(),
                                  wanted.name, tensor.group, group.id));
      }
      group.id = tensor.group;
      group.tensors.push_back(id);
    }
    if (!description.steps.empty()) groups_.push_back(std::move(group));
  }
  embedding_ = file.Find(description_.embedding_tensor);
  head_ = file.Find(description_.head_tensor);
  if (!description_.position_tensor.empty()) positions_ = file.Find(description_.position_tensor);
  return Status();
}

// Passes that follow use the head, or do not: a store that reads ahead wants to know.
void Forward::SetHeadInUse(bool in_use) {
  if (in_use == head_in_use_) return;
  head_in_use_ = in_use;
  std::vector<GroupId> groups;
  for (size_t g = 0; g + (in_use ? 0 : 1) < groups_.size(); ++g) groups.push_back(groups_[g].id);
  store_->SetGroupsInUse(groups);
}

Status Forward::Run(const Batch& batch, const std::atomic<bool>* cancel) {
  activations_.quantized_content.reset();
  SetHeadInUse(!batch.wanted.empty());
  if (Status status = GatherEmbeddings(batch); !status.ok()) return status;
  for (size_t g = 0; g + 1 < groups_.size(); ++g) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return Status(ErrorCode::kCancelled, "the pass was cancelled");
    }
    const auto begin = Trace::Clock::now();
    Result<WeightLease> lease = store_->Acquire(groups_[g].id);
    if (!lease.ok()) return lease.status();
    if (Status s = RunSteps({groups_[g], *lease, &batch, batch.tokens(), 0, cancel}); !s.ok()) {
      return s;
    }
    TraceGroup(groups_[g], begin, batch.tokens());
  }
  // The head sees the wanted tokens only: their rows move together, in place since it is upwards.
  const int64_t width = activations_.width(Buffer::kHidden);
  float* hidden = activations_.data(Buffer::kHidden);
  int64_t row = 0;
  for (int64_t token : batch.wanted) {
    std::memmove(hidden + row++ * width, hidden + token * width,
                 static_cast<size_t>(width) * sizeof(float));
  }
  return Status();
}

void Forward::TraceGroup(const Group& group, Trace::Clock::time_point begin, int64_t tokens) {
  if (trace_ == nullptr) return;
  const GroupDescription& description = *group.description;
  std::string name = description.layer < 0 ? "" : fmt::format("layer {} ", description.layer);
  name += fmt::format("{} x{}", GroupKindName(description.kind), tokens);
  trace_->Add(Trace::Track::kCompute, std::move(name), begin, Trace::Clock::now(),
              store_->file().groups()[group.id].size_bytes);
}

Status Forward::Logits(int64_t first, int64_t count, float* logits) {
  const auto begin = Trace::Clock::now();
  const Group& head = groups_.back();
  Result<WeightLease> lease = store_->Acquire(head.id);
  if (!lease.ok()) return lease.status();
  const Pass pass = {head, *lease, nullptr, count, first, nullptr};
  if (Status status = RunSteps(pass); !status.ok()) return status;
  const Status status =
      Matmul(pass, head_, Buffer::kNormed, nullptr, false, logits, config_.vocab_size);
  if (description_.logit_softcap != 0 && status.ok()) {
    const int64_t values = count * config_.vocab_size;
    team_->For(values, RangeOf(values), [&](int64_t b, int64_t e) {
      ops_->softcap({.x = logits, .cap = description_.logit_softcap, .begin = b, .end = e},
                    nullptr);
    });
  }
  TraceGroup(head, begin, count);
  return status;
}

Status Forward::GatherEmbeddings(const Batch& batch) {
  if (Status s = GatherRows(embedding_, batch.ids, Buffer::kHidden); !s.ok()) return s;
  if (positions_ != kNoIndex) {
    if (Status s = GatherRows(positions_, batch.positions, Buffer::kNormed); !s.ok()) return s;
  }
  if (positions_ == kNoIndex && description_.embedding_scale == 1) return Status();
  const int64_t width = activations_.width(Buffer::kHidden);
  team_->For(batch.tokens(), RangeOf(batch.tokens()), [&](int64_t b, int64_t e) {
    ops_->scale_add({.y = activations_.data(Buffer::kHidden),
                     .y_stride = width,
                     .scale = description_.embedding_scale,
                     .x = positions_ == kNoIndex ? nullptr : activations_.data(Buffer::kNormed),
                     .x_stride = width,
                     .width = width,
                     .token_begin = b,
                     .token_end = e},
                    nullptr);
  });
  return Status();
}

Status Forward::GatherRows(TensorId table, const std::vector<int32_t>& rows, Buffer out) {
  const TileLayout& layout = store_->file().tensors()[table].layout;
  std::vector<const std::byte*> tiles;
  std::vector<uint32_t> rows_in_tile;
  tiles.reserve(rows.size());
  rows_in_tile.reserve(rows.size());
  for (int32_t row : rows) {
    Result<const std::byte*> tile = store_->TakeTile(table, static_cast<uint64_t>(row));
    if (!tile.ok()) return tile.status();
    tiles.push_back(*tile);
    rows_in_tile.push_back(static_cast<uint32_t>(row) % layout.tile_rows);
  }
  const int64_t width = activations_.width(out);
  const auto count = static_cast<int64_t>(rows.size());
  team_->For(count, RangeOf(count), [&](int64_t b, int64_t e) {
    // Rows of an embedding come in the file's layout, from the host.
    const OpTable& ops = ops_->on_device ? kRefTable : *ops_;
    ops.gather_rows({.layout = &layout,
                     .row_tiles = tiles.data() + b,
                     .rows_in_tile = rows_in_tile.data() + b,
                     .count = e - b,
                     .out = activations_.data(out) + b * width,
                     .out_stride = width},
                    nullptr);
  });
  Written(out);
  return Status();
}

}  // namespace sluice
