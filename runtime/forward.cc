#include "runtime/forward.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "formats/checked.h"
#include "kernels/cuda/support.h"
#include "kernels/select.h"

namespace sluice {
namespace {

// Ranges of an operation that each thread gets, so that a late thread holds up little.
constexpr int64_t kRangesPerThread = 8;

// What a device is told of a batch that it cannot look at.
struct Longest {
  int64_t length = 0;
  int64_t run = 0;  // tokens in a row that share a block table
};

Longest LongestOf(const Batch& batch) {
  Longest longest;
  int64_t run = 0;
  for (size_t t = 0; t < batch.lengths.size(); ++t) {
    run = t > 0 && batch.block_tables[t] == batch.block_tables[t - 1] ? run + 1 : 1;
    longest.run = std::max(longest.run, run);
    longest.length = std::max(longest.length, batch.lengths[t]);
  }
  return longest;
}

int64_t CpuGrain(int64_t items, int threads) {
  return std::max<int64_t>(1, items / (threads * kRangesPerThread));
}

// A range of weights that is read for one token: shorter ones end before the processor has noticed
// that it reads a stream.
constexpr int64_t kStreamBytes = 64 << 10;

// Of tiles of weights. For one token long ranges; for several an even number of tiles, because
// kernels take two at a time, and for many the smallest, since each of them is long work.
int64_t TileGrain(int64_t tiles, uint64_t tile_bytes, int64_t tokens, int threads) {
  const int64_t grain = CpuGrain(tiles, threads);
  if (tokens > 1) return tokens >= 64 ? 2 : std::max<int64_t>(grain / 2 * 2, 2);
  const int64_t stream = kStreamBytes / static_cast<int64_t>(tile_bytes) + 1;
  return std::clamp<int64_t>(stream, grain, std::max(grain, (tiles + threads - 1) / threads));
}

// Of (token, KV head) items: whole tokens, whose KV heads lie side by side in the cache; of fewer
// tokens than threads as many KV heads as there are for each thread.
int64_t AttentionGrain(int64_t tokens, int64_t kv_heads, int threads) {
  if (tokens >= threads) return CpuGrain(tokens, threads) * kv_heads;
  return (tokens * kv_heads + threads - 1) / threads;
}

// The first error of several workers.
class ErrorSlot {
 public:
  void Set(const Status& status) {
    const std::lock_guard lock(mutex_);
    if (status_.ok()) status_ = status;
    failed_ = true;
  }
  bool failed() const { return failed_; }
  Status Take() { return status_; }

 private:
  std::mutex mutex_;
  Status status_;
  std::atomic<bool> failed_ = false;
};

}  // namespace

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

int64_t Forward::Grain(int64_t items) const {
  return ops_->on_device ? std::max<int64_t>(1, items) : CpuGrain(items, team_->threads());
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
    team_->For(values, Grain(values), [&](int64_t b, int64_t e) {
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
  team_->For(batch.tokens(), Grain(batch.tokens()), [&](int64_t b, int64_t e) {
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
  team_->For(count, Grain(count), [&](int64_t b, int64_t e) {
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

Status Forward::RunSteps(const Pass& pass) {
  for (const Step& step : pass.group.description->steps) {
    const Status status = std::visit([&](const auto& s) { return RunStep(pass, s); }, step);
    if (!status.ok()) return status;
  }
  return Status();
}

const float* Forward::InputOf(const Pass& pass, Buffer buffer) const {
  const float* rows = activations_.data(buffer);
  return buffer == Buffer::kHidden ? rows + pass.first_hidden * activations_.width(buffer) : rows;
}

Status Forward::RunStep(const Pass& pass, const RmsNormStep& step) {
  Result<const float*> weight = Vector(pass, step.weight);
  if (!weight.ok()) return weight.status();
  // Parts of a row follow each other without a gap, and so do the rows of both buffers: each part
  // is a row to the operation.
  const int64_t width = activations_.width(step.in) / step.heads;
  const int64_t rows = pass.tokens * step.heads;
  team_->For(rows, Grain(rows), [&](int64_t begin, int64_t end) {
    ops_->rms_norm({.x = InputOf(pass, step.in),
                    .x_stride = width,
                    .weight = *weight,
                    .width = width,
                    .eps = step.eps,
                    .add_to_y = step.add_to_out,
                    .y = activations_.data(step.out),
                    .y_stride = activations_.width(step.out) / step.heads,
                    .token_begin = begin,
                    .token_end = end},
                   nullptr);
  });
  Written(step.out);
  return Status();
}

Status Forward::RunStep(const Pass& pass, const LayerNormStep& step) {
  Result<const float*> weight = Vector(pass, step.weight, 0);
  if (!weight.ok()) return weight.status();
  const float* bias = nullptr;
  if (step.bias != kNoTensor) {
    Result<const float*> vector = Vector(pass, step.bias, 1);
    if (!vector.ok()) return vector.status();
    bias = *vector;
  }
  const int64_t width = activations_.width(step.in);
  team_->For(pass.tokens, Grain(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->layer_norm({.x = InputOf(pass, step.in),
                      .x_stride = width,
                      .weight = *weight,
                      .bias = bias,
                      .width = width,
                      .eps = step.eps,
                      .y = activations_.data(step.out),
                      .y_stride = activations_.width(step.out),
                      .token_begin = begin,
                      .token_end = end},
                     nullptr);
  });
  Written(step.out);
  return Status();
}

Status Forward::RunStep(const Pass& pass, const LinearStep& step) {
  const float* bias = nullptr;
  if (step.bias != kNoTensor) {
    Result<const float*> vector = Vector(pass, step.bias);
    if (!vector.ok()) return vector.status();
    bias = *vector;
  }
  const Status status =
      Matmul(pass, pass.group.tensors[step.weight], step.in, bias, step.add_to_out,
             activations_.data(step.out), activations_.width(step.out));
  Written(step.out);
  return status;
}

Status Forward::RunStep(const Pass& pass, const RopeStep& step) {
  const RopeConfig& rope = description_.ropes[step.rope];
  team_->For(pass.tokens, Grain(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->rope({.x = activations_.data(step.data),
                .x_stride = activations_.width(step.data),
                .positions = pass.batch->positions.data(),
                .frequencies = rope_frequencies_[step.rope].data(),
                .magnitude = static_cast<float>(rope.attention_factor),
                .heads = step.heads,
                .head_dim = step.head_dim,
                .dim = rope.dim,
                .token_begin = begin,
                .token_end = end},
               nullptr);
  });
  Written(step.data);
  return Status();
}

Status Forward::RunStep(const Pass& pass, const AttentionStep& step) {
  const KvLayer& layer = kv_cache_->layer(step.layer);
  team_->For(pass.tokens, Grain(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->store_kv({.key = activations_.data(step.key),
                    .value = activations_.data(step.value),
                    .stride = activations_.width(step.key),
                    .layer = layer,
                    .slots = pass.batch->slots.data(),
                    .token_begin = begin,
                    .token_end = end},
                   nullptr);
  });
  const Longest longest = ops_->on_device ? LongestOf(*pass.batch) : Longest();
  const int64_t items = pass.tokens * step.num_kv_heads;
  const int64_t grain =
      ops_->on_device ? items
                      : AttentionGrain(pass.tokens, step.num_kv_heads, team_->threads());
  team_->For(items, grain, [&](int64_t begin, int64_t end) {
    ops_->attention({.query = activations_.data(step.query),
                     .query_stride = activations_.width(step.query),
                     .num_heads = step.num_heads,
                     .layer = layer,
                     .block_tables = pass.batch->block_tables.data(),
                     .lengths = pass.batch->lengths.data(),
                     .window = step.window,
                     .scale = step.scale,
                     .softcap = step.softcap,
                     .out = activations_.data(step.out),
                     .out_stride = activations_.width(step.out),
                     .item_begin = begin,
                     .item_end = end,
                     .longest_length = longest.length,
                     .longest_run = longest.run,
                     .scratch = attention_scratch_.data(),
                     .scratch_size = static_cast<int64_t>(attention_scratch_.size())},
                    nullptr);
  });
  Written(step.out);
  return Status();
}

Status Forward::RunStep(const Pass& pass, const ActivationStep& step) {
  const int64_t width = activations_.width(step.gate);
  team_->For(pass.tokens, Grain(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->activate({.activation = step.activation,
                    .gate = activations_.data(step.gate),
                    .up = step.up ? activations_.data(*step.up) : nullptr,
                    .stride = width,
                    .width = width,
                    .out = activations_.data(step.out),
                    .out_stride = activations_.width(step.out),
                    .token_begin = begin,
                    .token_end = end},
                   nullptr);
  });
  Written(step.out);
  return Status();
}

Status Forward::Matmul(const Pass& pass, TensorId tensor, Buffer in, const float* bias,
                       bool add_to_out, float* out, int64_t out_stride) {
  const TileLayout& layout = store_->file().tensors()[tensor].layout;
  const auto cols = static_cast<int64_t>(layout.cols);
  const bool quantized = ops_->activations(layout.type) == ActivationForm::kQuantized;
  QuantizedActivations xq = {};
  if (quantized) {
    const int64_t group = ActivationGroup(layout.type);
    Quantize(in, cols, group, pass.tokens);
    xq = activations_.Quantized(cols, group);
  }
  ErrorSlot error;
  for (const WeightPart& part : pass.lease.Parts(tensor)) {
    if (pass.cancel != nullptr && pass.cancel->load(std::memory_order_relaxed)) {
      return Status(ErrorCode::kCancelled, "the pass was cancelled");
    }
    const auto num_tiles = static_cast<int64_t>(part.num_tiles);
    const auto part_rows = static_cast<int64_t>(part.row_count);
    const int64_t grain =
        ops_->on_device ? num_tiles
                        : TileGrain(num_tiles, layout.tile_bytes, pass.tokens, team_->threads());
    team_->For(num_tiles, grain, [&](int64_t begin, int64_t end) {
      if (error.failed()) return;
      const Result<const std::byte*> tiles = pass.lease.Take(part);
      if (!tiles.ok()) return error.Set(tiles.status());
      const int64_t row = static_cast<int64_t>(part.row_begin) + begin * kTileRows;
      ops_->matmul({.layout = &layout,
                    .tiles = *tiles + static_cast<uint64_t>(begin) * layout.tile_bytes,
                    .num_tiles = end - begin,
                    .rows = std::min(end * kTileRows, part_rows) - begin * kTileRows,
                    .x = activations_.data(in),
                    .x_stride = activations_.width(in),
                    .xq = quantized ? &xq : nullptr,
                    .tokens = pass.tokens,
                    .bias = bias == nullptr ? nullptr : bias + row,
                    .add_to_y = add_to_out,
                    .y = out + row,
                    .y_stride = out_stride,
                    .block_begin = 0,
                    .block_end = static_cast<int64_t>(CeilDiv(layout.padded_cols, kBlockChannels))},
                   nullptr);
    });
    pass.lease.Done(part);
    if (error.failed()) break;
  }
  return error.Take();
}

void Forward::Quantize(Buffer buffer, int64_t cols, int64_t group_size, int64_t tokens) {
  const Activations::QuantizedContent content = {buffer, group_size};
  if (activations_.quantized_content == content) return;
  team_->For(tokens, Grain(tokens), [&](int64_t begin, int64_t end) {
    ops_->quantize({.x = activations_.data(buffer),
                    .x_stride = activations_.width(buffer),
                    .cols = cols,
                    .out = activations_.Quantized(cols, group_size),
                    .token_begin = begin,
                    .token_end = end},
                   nullptr);
  });
  activations_.quantized_content = content;
}

Result<const float*> Forward::Vector(const Pass& pass, TensorIndex index, size_t scratch) {
  const TensorId tensor = pass.group.tensors[index];
  const TileLayout& layout = store_->file().tensors()[tensor].layout;
  const Result<const std::byte*> bytes = pass.lease.Take(pass.lease.Parts(tensor)[0]);
  if (!bytes.ok()) return bytes.status();
  // A device gets its vectors in float32.
  if (layout.type.kind == WeightKind::kF32 || ops_->on_device) {
    return reinterpret_cast<const float*>(*bytes);
  }
  const std::byte* tile = *bytes;
  const uint32_t row = 0;
  ops_->gather_rows({.layout = &layout,
                     .row_tiles = &tile,
                     .rows_in_tile = &row,
                     .count = 1,
                     .out = activations_.vector_scratch(scratch),
                     .out_stride = static_cast<int64_t>(layout.cols)},
                    nullptr);
  return static_cast<const float*>(activations_.vector_scratch(scratch));
}

void Forward::Written(Buffer buffer) {
  if (activations_.quantized_content && activations_.quantized_content->buffer == buffer) {
    activations_.quantized_content.reset();
  }
}

}  // namespace sluice
