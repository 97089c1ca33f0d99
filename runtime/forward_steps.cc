// The steps of a description, each as one or more operations divided among the threads.
#include <algorithm>
#include <mutex>

#include "formats/checked.h"
#include "runtime/forward.h"

namespace sluice {
namespace {

// Ranges of an operation that each thread gets, so that a late thread holds up little.
constexpr int64_t kRangesPerThread = 8;

// Tokens whose products take less time than the weights do to be read.
constexpr int64_t kFewTokens = 3;

int64_t Grain(int64_t items, int threads) {
  return std::max<int64_t>(1, items / (threads * kRangesPerThread));
}

// Weights of a range for few tokens: kernels read four streams of a quarter each, and shorter ones
// end before the processor has noticed that it reads a stream.
constexpr int64_t kStreamsBytes = 256 << 10;

// Of tiles of weights. For few tokens ranges that are long reads, as many for each thread; for
// several a multiple of four tiles, because kernels take two or four at a time, and for many no
// more than they take together, since each of them is long work.
int64_t TileGrain(int64_t tiles, uint64_t tile_bytes, int64_t tokens, int threads) {
  if (tokens >= 64) return std::clamp<int64_t>(tiles / (8 * threads) / 2 * 2, 2, 16);
  if (tokens > kFewTokens) return std::max<int64_t>(Grain(tiles, threads) / 4 * 4, 4);
  const int64_t bytes = tiles * static_cast<int64_t>(tile_bytes);
  const int64_t ranges =
      std::clamp<int64_t>(bytes / (threads * kStreamsBytes), 1, kRangesPerThread) * threads;
  return std::max<int64_t>((tiles + ranges - 1) / ranges, 1);
}

// Of (token, KV head) items: whole tokens, whose KV heads lie side by side in the cache, and
// several of one sequence, which read its context once; of fewer tokens than threads as many KV
// heads as there are for each thread.
constexpr int64_t kTokensOfTile = 8;
int64_t AttentionGrain(int64_t tokens, int64_t kv_heads, int threads, int64_t longest_run) {
  if (tokens < threads) return (tokens * kv_heads + threads - 1) / threads;
  const int64_t tile = std::min({kTokensOfTile, longest_run, tokens / threads});
  return std::max(Grain(tokens, threads), tile) * kv_heads;
}

// Splits that the contexts of few tokens are divided into, so that all threads have work and none
// reads what another reads; 0: tokens and heads are divided.
int64_t AttentionSplits(int64_t tokens, int threads, int64_t longest_length) {
  const int64_t splits = (longest_length + kAttentionSplitKeys - 1) / kAttentionSplitKeys;
  const bool few = tokens <= kTokensOfTile * threads && threads > 1;
  return few && splits > 1 && splits * tokens <= Activations::kAttentionParts ? splits : 0;
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

int64_t Forward::HostRangeOf(int64_t items) const { return Grain(items, team_->threads()); }

int64_t Forward::RangeOf(int64_t items) const { return RangeOf(items, HostRangeOf(items)); }

int64_t Forward::RangeOf(int64_t items, int64_t grain) const {
  return ops_->on_device ? std::max<int64_t>(1, items) : grain;
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
  team_->For(rows, RangeOf(rows), [&](int64_t begin, int64_t end) {
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
                   compute_.handle());
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
  team_->For(pass.tokens, RangeOf(pass.tokens), [&](int64_t begin, int64_t end) {
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
                     compute_.handle());
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
  const float* frequencies =
      scratch_ ? scratch_->frequencies(step.rope) : rope_frequencies_[step.rope].data();
  team_->For(pass.tokens, RangeOf(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->rope({.x = activations_.data(step.data),
                .x_stride = activations_.width(step.data),
                .positions = arrays_.positions,
                .frequencies = frequencies,
                .magnitude = static_cast<float>(rope.attention_factor),
                .heads = step.heads,
                .head_dim = step.head_dim,
                .dim = rope.dim,
                .token_begin = begin,
                .token_end = end},
               compute_.handle());
  });
  Written(step.data);
  return Status();
}

Status Forward::RunStep(const Pass& pass, const AttentionStep& step) {
  const KvLayer& layer = kv_cache_->layer(step.layer);
  team_->For(pass.tokens, RangeOf(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->store_kv({.key = activations_.data(step.key),
                    .value = activations_.data(step.value),
                    .stride = activations_.width(step.key),
                    .layer = layer,
                    .slots = arrays_.slots,
                    .token_begin = begin,
                    .token_end = end},
                   compute_.handle());
  });
  const float* slopes = description_.alibi_slopes.empty() ? nullptr
                        : scratch_                        ? scratch_->alibi_slopes()
                                                          : description_.alibi_slopes.data();
  AttentionArgs args = {.query = activations_.data(step.query),
                        .query_stride = activations_.width(step.query),
                        .num_heads = step.num_heads,
                        .layer = layer,
                        .block_tables = arrays_.block_tables,
                        .lengths = arrays_.lengths,
                        .window = step.window,
                        .scale = step.scale,
                        .softcap = step.softcap,
                        .out = activations_.data(step.out),
                        .out_stride = activations_.width(step.out),
                        .item_begin = 0,
                        .item_end = 0,
                        .tokens = pass.tokens,
                        .longest_length = longest_.length,
                        .longest_run = longest_.run,
                        .scratch = scratch_ ? scratch_->attention_scratch() : nullptr,
                        .scratch_size = scratch_ ? scratch_->attention_scratch_size() : 0,
                        .slopes = slopes,
                        .slopes_in_bf16 = description_.alibi_in_bf16,
                        .tree_begin = arrays_.tree_begins,
                        .ancestors = arrays_.ancestors};
  const bool divisible = ops_->combine_attention != nullptr && layer.head_dim <= kLargestSplitDim;
  const int64_t splits =
      divisible ? AttentionSplits(pass.tokens, team_->threads(), longest_.length) : 0;
  const int64_t items = pass.tokens * step.num_kv_heads;
  if (splits == 0) {
    const int64_t grain =
        AttentionGrain(pass.tokens, step.num_kv_heads, team_->threads(), longest_.run);
    ForItems(items, grain, args, ops_->attention);
  } else {
    args.partials = activations_.attention_partials();
    const int64_t ranges = team_->threads() * kRangesPerThread;  // in all
    const int64_t of_split = std::clamp<int64_t>(ranges / splits, 1, step.num_kv_heads);
    ForItems(splits * items, (items + of_split - 1) / of_split, args, ops_->attention);
    ForItems(items, Grain(items, team_->threads()), args, ops_->combine_attention);
  }
  Written(step.out);
  return Status();
}

void Forward::ForItems(int64_t items, int64_t grain, const AttentionArgs& args,
                       void (*attention)(const AttentionArgs&, CUstream_st*)) {
  team_->For(items, RangeOf(items, grain), [&](int64_t begin, int64_t end) {
    AttentionArgs range = args;
    range.item_begin = begin;
    range.item_end = end;
    attention(range, compute_.handle());
  });
}

Status Forward::RunStep(const Pass& pass, const ActivationStep& step) {
  const int64_t width = activations_.width(step.gate);
  team_->For(pass.tokens, RangeOf(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->activate({.activation = step.activation,
                    .gate = activations_.data(step.gate),
                    .up = step.up ? activations_.data(*step.up) : nullptr,
                    .stride = width,
                    .width = width,
                    .out = activations_.data(step.out),
                    .out_stride = activations_.width(step.out),
                    .token_begin = begin,
                    .token_end = end},
                   compute_.handle());
  });
  Written(step.out);
  return Status();
}

Status Forward::Matmul(const Pass& pass, TensorId tensor, Buffer in, const float* bias,
                       bool add_to_out, float* out, int64_t out_stride) {
  const TileLayout& layout = store_->file().tensors()[tensor].layout;
  const auto cols = static_cast<int64_t>(layout.cols);
  // Decided by what the tokens are, not by how many.
  const int64_t exact = std::min(pass.prompt_begin, pass.tokens);
  const bool quantized = exact > 0 && ops_->activations(layout.type) == ActivationForm::kQuantized;
  QuantizedActivations xq = {};
  if (quantized) {
    const int64_t group = ActivationGroup(layout.type);
    Quantize(pass, in, cols, group, exact);
    xq = activations_.Quantized(cols, group);
  }
  Bf16Activations x_bf16 = {};
  if (exact < pass.tokens && f16_) {
    RoundF16(in, cols, exact, pass.tokens);
  } else if (exact < pass.tokens) {
    RoundBf16(in, cols, exact, pass.tokens);
    x_bf16 = activations_.Bf16(cols);
  }
  ErrorSlot error;
  for (const WeightPart& part : pass.lease.Parts(tensor)) {
    if (pass.cancel != nullptr && pass.cancel->load(std::memory_order_relaxed)) {
      return Status(ErrorCode::kCancelled, "the pass was cancelled");
    }
    const auto num_tiles = static_cast<int64_t>(part.num_tiles);
    const auto part_rows = static_cast<int64_t>(part.row_count);
    const int64_t grain = TileGrain(num_tiles, layout.tile_bytes, pass.tokens, team_->threads());
    team_->For(num_tiles, RangeOf(num_tiles, grain), [&](int64_t begin, int64_t end) {
      if (error.failed()) return;
      const Result<const std::byte*> tiles = pass.lease.Take(part);
      if (!tiles.ok()) return error.Set(tiles.status());
      const int64_t row = static_cast<int64_t>(part.row_begin) + begin * kTileRows;
      MatmulArgs args = {
          .layout = &layout,
          .tiles = *tiles + static_cast<uint64_t>(begin) * layout.tile_bytes,
          .num_tiles = end - begin,
          .rows = std::min(end * kTileRows, part_rows) - begin * kTileRows,
          .x = InputOf(pass, in),
          .x_stride = activations_.width(in),
          .xq = quantized ? &xq : nullptr,
          .tokens = exact,
          .bias = bias == nullptr ? nullptr : bias + row,
          .add_to_y = add_to_out,
          .y = out + row,
          .y_stride = out_stride,
          .block_begin = 0,
          .block_end = static_cast<int64_t>(CeilDiv(layout.padded_cols, kBlockChannels))};
      if (exact > 0) ops_->matmul(args, compute_.handle());
      if (exact == pass.tokens) return;
      args.tokens = pass.tokens - exact;
      args.y += exact * out_stride;
      if (f16_) {
        const Status s = f16_->Multiply(args, activations_.F16(cols), compute_.handle());
        if (!s.ok()) error.Set(s);
        return;
      }
      args.x_bf16 = &x_bf16;
      ops_->matmul_bf16(args, compute_.handle());
    });
    pass.lease.Done(part);
    if (error.failed()) break;
  }
  return error.Take();
}

void Forward::Quantize(const Pass& pass, Buffer buffer, int64_t cols, int64_t group_size,
                       int64_t tokens) {
  const Activations::QuantizedContent content = {buffer, group_size};
  if (activations_.quantized_content == content) return;
  team_->For(tokens, RangeOf(tokens), [&](int64_t begin, int64_t end) {
    ops_->quantize({.x = InputOf(pass, buffer),
                    .x_stride = activations_.width(buffer),
                    .cols = cols,
                    .out = activations_.Quantized(cols, group_size),
                    .token_begin = begin,
                    .token_end = end},
                   compute_.handle());
  });
  activations_.quantized_content = content;
}

void Forward::RoundBf16(Buffer buffer, int64_t cols, int64_t first, int64_t tokens) {
  if (activations_.bf16_content == buffer) return;
  const int64_t count = tokens - first;
  const int64_t stride = activations_.width(buffer);
  team_->For(count, RangeOf(count), [&](int64_t begin, int64_t end) {
    ops_->round_bf16({.x = activations_.data(buffer) + first * stride,
                      .x_stride = stride,
                      .cols = cols,
                      .tokens = count,
                      .out = activations_.Bf16(cols),
                      .token_begin = begin,
                      .token_end = end},
                     compute_.handle());
  });
  activations_.bf16_content = buffer;
}

void Forward::RoundF16(Buffer buffer, int64_t cols, int64_t first, int64_t tokens) {
  if (activations_.f16_content == buffer) return;
  const int64_t stride = activations_.width(buffer);
  ops_->round_f16({.x = activations_.data(buffer) + first * stride,
                   .x_stride = stride,
                   .cols = cols,
                   .out = activations_.F16(cols),
                   .token_begin = 0,
                   .token_end = tokens - first},
                  compute_.handle());
  activations_.f16_content = buffer;
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
  if (activations_.bf16_content == buffer) activations_.bf16_content.reset();
  if (activations_.f16_content == buffer) activations_.f16_content.reset();
}

}  // namespace sluice
