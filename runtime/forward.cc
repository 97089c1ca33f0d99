#include "runtime/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/support.h"
#include "kernels/select.h"
#include "runtime/gpu.h"

namespace sluice {

Forward::Forward(const ModelConfig& config, const ModelDescription& description, WeightStore* store,
                 const Compute& compute, KvCache* kv_cache, ThreadTeam* team,
                 Activations activations, int64_t context_tokens, bool bf16_prompts)
    : config_(config),
      description_(description),
      store_(store),
      compute_(compute),
      ops_(compute.ops),
      bf16_prompts_(bf16_prompts),
      kv_cache_(kv_cache),
      team_(team),
      activations_(std::move(activations)),
      context_tokens_(context_tokens) {
  for (const RopeConfig& rope : description_.ropes) {
    rope_frequencies_.push_back(RopeFrequencies(rope, context_tokens));
  }
}

Result<std::unique_ptr<Forward>> Forward::Create(const ModelConfig& config,
                                                 const ModelDescription& description,
                                                 WeightStore* store, const Compute& compute,
                                                 KvCache* kv_cache, ThreadTeam* team,
                                                 int64_t max_batch_tokens, int64_t context_tokens,
                                                 bool bf16_prompts) {
  Result<Activations> activations =
      Activations::Create(description, max_batch_tokens, compute.device, bf16_prompts,
                          /*with_f16=*/compute.f16_library != nullptr);
  if (!activations.ok()) return activations.status();
  std::unique_ptr<Forward> forward(new Forward(config, description, store, compute, kv_cache, team,
                                               std::move(*activations), context_tokens,
                                               bf16_prompts));
  if (Status status = forward->Bind(); !status.ok()) return status;
  if (Status s = forward->PrepareDevice(context_tokens); !s.ok()) return s;
  return forward;
}

Status Forward::PrepareDevice(int64_t context_tokens) {
  if (compute_.device == nullptr) return Status();
  for (size_t i = 0; i < description_.layer_states.size(); ++i) {
    const KvLayer& layer = kv_cache_->layer(static_cast<int64_t>(i));
    if (Status s = CheckGpuCache(layer); !s.ok()) return s;
  }
  Result<DeviceScratch> scratch = DeviceScratch::Create(
      compute_.device, compute_.stream,
      DeviceScratchSizesOf(description_, config_.vocab_size, max_batch_tokens(), context_tokens,
                           kv_cache_->num_blocks(), compute_.f16_library != nullptr),
      rope_frequencies_, description_.alibi_slopes);
  if (!scratch.ok()) return scratch.status();
  scratch_ = std::move(*scratch);
  graphs_.emplace(compute_.device, compute_.stream);
  return compute_.f16_library == nullptr ? Status() : PrepareF16();
}

// A library loads its code when it first needs it. No memory is to be taken after loading a model,
// so all shapes are multiplied here, and what that took is counted, or what is planned with.
Status Forward::PrepareF16() {
  const Result<DeviceMemory> before = compute_.device->Memory();
  if (!before.ok()) return before.status();
  CublasLt* const library = compute_.f16_library;
  if (Status s =
          library->Open(scratch_->workspace(), scratch_->workspace_bytes(), max_batch_tokens());
      !s.ok()) {
    return s;
  }
  f16_.emplace(ops_, library, scratch_->panel(), scratch_->panel_values());
  std::set<Shape> done;
  for (size_t g = 0; g + 1 < groups_.size(); ++g) {
    if (Status s = MultiplyOnce(groups_[g], &done); !s.ok()) return s;
  }
  if (Status s = compute_.stream->Synchronize(); !s.ok()) return s;
  const Result<DeviceMemory> after = compute_.device->Memory();
  if (!after.ok()) return after.status();
  const uint64_t taken = before->free_bytes - std::min(before->free_bytes, after->free_bytes);
  return compute_.device->CountTaken(std::max(taken, kF16LibraryBytes))
      .WithContext(library->description());
}

Status Forward::MultiplyOnce(const Group& group, std::set<Shape>* done) {
  for (const Step& step : group.description->steps) {
    const auto* linear = std::get_if<LinearStep>(&step);
    if (linear == nullptr) continue;
    const TensorRequirement& matrix = group.description->tensors[linear->weight];
    const auto rows = static_cast<int64_t>(matrix.rows);
    const auto cols = static_cast<int64_t>(matrix.cols);
    const int64_t stride = activations_.width(linear->out);
    if (!done->insert({rows, cols, stride}).second) continue;
    if (Status s = f16_->Prepare(rows, cols, activations_.F16(cols), max_batch_tokens(),
                                 activations_.data(linear->out), stride, compute_.handle());
        !s.ok()) {
      return s;
    }
  }
  return Status();
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
    // A head may have its matrix alone.
    const bool computes = !description.steps.empty() || description.kind == GroupKind::kHead;
    if (computes) groups_.push_back(std::move(group));
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

Forward::Longest Forward::LongestOf(const Batch& batch) {
  Longest longest;
  int64_t run = 0;
  for (size_t t = 0; t < batch.lengths.size(); ++t) {
    run = t > 0 && batch.block_tables[t] == batch.block_tables[t - 1] ? run + 1 : 1;
    longest.run = std::max(longest.run, run);
    longest.length = std::max(longest.length, batch.lengths[t]);
  }
  return longest;
}

Status Forward::Run(const Batch& batch, const std::atomic<bool>* cancel) {
  if (batch.has_trees() && (batch.ancestors.size() != batch.ids.size() ||
                            batch.tree_begins.size() != batch.ids.size())) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a batch of {} tokens with trees of {} and {}", batch.tokens(),
                              batch.tree_begins.size(), batch.ancestors.size()));
  }
  activations_.quantized_content.reset();
  activations_.bf16_content.reset();
  activations_.f16_content.reset();
  SetHeadInUse(!batch.wanted.empty());
  if (Status status = Send(batch); !status.ok()) return status;
  if (Status status = RunLayers(batch, cancel); !status.ok()) return status;
  return KeepWanted(batch);
}

Status Forward::RunLayers(const Batch& batch, const std::atomic<bool>* cancel) {
  longest_ = LongestOf(batch);
  if (!graphs_) return RunGroups(batch, cancel);
  const std::optional<PassShape> shape =
      RecordableShape(batch.tokens(), longest_.run, longest_.length, context_tokens_);
  // A trace has times of single groups; trees and prompts in f16 have kernels that no recording of
  // the shape knows.
  const bool has_f16 = f16_ && batch.first_prompt_token < batch.tokens();
  if (!shape || trace_ != nullptr || batch.has_trees() || has_f16) return RunGroups(batch, cancel);
  longest_.length = shape->longest_length;
  const Status status = graphs_->Run(*shape, [&] { return RunGroups(batch, cancel); });
  // A recording does not say what it left there.
  activations_.quantized_content.reset();
  return status;
}

Status Forward::RunGroups(const Batch& batch, const std::atomic<bool>* cancel) {
  activations_.quantized_content.reset();
  const int64_t prompt_begin = bf16_prompts_ || f16_ ? batch.first_prompt_token : batch.tokens();
  for (size_t g = 0; g + 1 < groups_.size(); ++g) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
      return Status(ErrorCode::kCancelled, "the pass was cancelled");
    }
    const auto begin = Trace::Clock::now();
    Result<WeightLease> lease = store_->Acquire(groups_[g].id);
    if (!lease.ok()) return lease.status();
    if (Status s = RunSteps({groups_[g], *lease, batch.tokens(), prompt_begin, 0, cancel});
        !s.ok()) {
      return s;
    }
    if (Status s = TraceGroup(groups_[g], begin, batch.tokens()); !s.ok()) return s;
  }
  return Status();
}

Status Forward::Send(const Batch& batch) {
  if (!scratch_) {
    arrays_ = {batch.positions.data(), batch.slots.data(), batch.lengths.data(),
               batch.block_tables.data()};
    if (batch.has_trees()) {
      arrays_.tree_begins = batch.tree_begins.data();
      arrays_.ancestors = batch.ancestors.data();
    }
    return GatherEmbeddings(batch);
  }
  if (Status s = scratch_->Begin(); !s.ok()) return s;
  const Result<BatchArrays> arrays = scratch_->SendArrays(batch);
  if (!arrays.ok()) return arrays.status();
  arrays_ = *arrays;
  const Status gathered = GatherEmbeddings(batch);
  // Also after an error: what was sent still reads the staging memory.
  const Status end = scratch_->End();
  return gathered.ok() ? end : gathered;
}

// The head sees the wanted tokens only: their rows move together, in place since it is upwards.
Status Forward::KeepWanted(const Batch& batch) {
  const int64_t width = activations_.width(Buffer::kHidden);
  float* hidden = activations_.data(Buffer::kHidden);
  int64_t row = 0;
  for (int64_t token : batch.wanted) {
    const int64_t to = row++;
    if (to == token) continue;
    if (Status s = MoveRow(hidden + token * width, hidden + to * width); !s.ok()) return s;
  }
  return Status();
}

Status Forward::MoveRow(const float* from, float* to) {
  const auto size_bytes = static_cast<size_t>(activations_.width(Buffer::kHidden)) * sizeof(float);
  if (compute_.stream != nullptr) {
    return compute_.stream->Copy(to, from, size_bytes, CopyDirection::kDeviceToDevice);
  }
  std::memcpy(to, from, size_bytes);
  return Status();
}

Status Forward::TraceGroup(const Group& group, Trace::Clock::time_point begin, int64_t tokens) {
  if (trace_ == nullptr) return Status();
  // Who looks at times wants those of the work, not of its start.
  if (compute_.stream != nullptr) {
    if (Status s = compute_.stream->Synchronize(); !s.ok()) return s;
  }
  const GroupDescription& description = *group.description;
  std::string name = description.layer < 0 ? "" : fmt::format("layer {} ", description.layer);
  name += fmt::format("{} x{}", GroupKindName(description.kind), tokens);
  trace_->Add(Trace::Track::kCompute, std::move(name), begin, Trace::Clock::now(),
              store_->file().groups()[group.id].size_bytes);
  return Status();
}

Status Forward::ComputeLogits(int64_t first, int64_t count, float* out) {
  const Group& head = groups_.back();
  Result<WeightLease> lease = store_->Acquire(head.id);
  if (!lease.ok()) return lease.status();
  const Pass pass = {head, *lease, count, count, first, nullptr};
  activations_.quantized_content.reset();  // of other rows of kHidden
  if (Status status = RunSteps(pass); !status.ok()) return status;
  if (Status s =
          Matmul(pass, {head_, description_.head_input, nullptr, false, out, config_.vocab_size});
      !s.ok()) {
    return s;
  }
  if (description_.logit_softcap != 0) {
    const int64_t values = count * config_.vocab_size;
    team_->For(values, RangeOf(values), [&](int64_t b, int64_t e) {
      ops_->softcap({.x = out, .cap = description_.logit_softcap, .begin = b, .end = e},
                    compute_.handle());
    });
  }
  return Status();
}

Status Forward::Logits(int64_t first, int64_t count, float* logits) {
  const auto begin = Trace::Clock::now();
  float* out = scratch_ ? scratch_->logits() : logits;
  if (Status s = ComputeLogits(first, count, out); !s.ok()) return s;
  if (compute_.stream != nullptr) {
    const auto size_bytes = static_cast<uint64_t>(count * config_.vocab_size) * sizeof(float);
    if (Status s = compute_.stream->Copy(logits, out, size_bytes, CopyDirection::kDeviceToHost);
        !s.ok()) {
      return s;
    }
    if (Status s = compute_.stream->Synchronize(); !s.ok()) return s;
  }
  return TraceGroup(groups_.back(), begin, count);
}

int64_t Forward::most_best_logits() const {
  if (!scratch_ || ops_->top_k == nullptr) return 0;
  return std::min<int64_t>(kMostTopK, config_.vocab_size);
}

Result<BestRows> Forward::BestLogits(int64_t first, int64_t count, int64_t each) {
  const auto begin = Trace::Clock::now();
  if (Status s = ComputeLogits(first, count, scratch_->logits()); !s.ok()) return s;
  const Result<BestRows> best = scratch_->Best(*ops_, count, each);
  if (!best.ok()) return best.status();
  if (Status s = TraceGroup(groups_.back(), begin, count); !s.ok()) return s;
  return best;
}

Status Forward::GatherEmbeddings(const Batch& batch) {
  const Buffer out = description_.embedding_output;
  if (Status s = GatherRows(embedding_, batch.ids, out, 0); !s.ok()) return s;
  // Positions are added where the embedding is the hidden state, and await it elsewhere.
  const bool adds_positions = positions_ != kNoIndex && out == Buffer::kHidden;
  if (positions_ != kNoIndex) {
    const Buffer to = adds_positions ? Buffer::kNormed : Buffer::kHidden;
    if (Status s = GatherRows(positions_, batch.positions, to, 1); !s.ok()) return s;
  }
  if (!adds_positions && description_.embedding_scale == 1) return Status();
  const int64_t width = activations_.width(out);
  team_->For(batch.tokens(), RangeOf(batch.tokens()), [&](int64_t b, int64_t e) {
    ops_->scale_add({.y = activations_.data(out),
                     .y_stride = width,
                     .scale = description_.embedding_scale,
                     .x = adds_positions ? activations_.data(Buffer::kNormed) : nullptr,
                     .x_stride = width,
                     .width = width,
                     .token_begin = b,
                     .token_end = e},
                    compute_.handle());
  });
  return Status();
}

Status Forward::GatherRows(TensorId table, const std::vector<int32_t>& rows, Buffer out,
                           size_t staging) {
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
  float* values = scratch_ ? scratch_->row_staging(staging) : activations_.data(out);
  // Rows of an embedding come in the file's layout, from the host: a table of a device cannot read
  // them.
  const OpTable& ops = scratch_ ? kRefTable : *ops_;
  team_->For(count, HostRangeOf(count), [&](int64_t b, int64_t e) {
    ops.gather_rows({.layout = &layout,
                     .row_tiles = tiles.data() + b,
                     .rows_in_tile = rows_in_tile.data() + b,
                     .count = e - b,
                     .out = values + b * width,
                     .out_stride = width},
                    nullptr);
  });
  Written(out);
  return scratch_ ? scratch_->SendRows(staging, count * width, activations_.data(out)) : Status();
}

}  // namespace sluice
