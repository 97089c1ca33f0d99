// The steps of a description, each as one or more operations divided among the threads.
#include <algorithm>

#include "runtime/forward.h"
#include "runtime/work_division.h"

namespace sluice {

int64_t Forward::HostRangeOf(int64_t items) const { return Grain(items, team_->threads()); }

int64_t Forward::RangeOf(int64_t items) const { return RangeOf(items, HostRangeOf(items)); }

int64_t Forward::RangeOf(int64_t items, int64_t grain) const {
  const bool whole = ops_->on_device || team_->threads() == 1;
  return whole ? std::max<int64_t>(1, items) : grain;
}

Status Forward::RunSteps(const Pass& pass) {
  for (size_t i = 0; i < pass.group.description->steps.size();) {
    const Result<size_t> count = RunStepsFrom(pass, i);
    if (!count.ok()) return count.status();
    i += *count;
  }
  return Status();
}

Result<size_t> Forward::RunStepsFrom(const Pass& pass, size_t index) {
  const std::span<const Step> steps = pass.group.description->steps;
  Status status;
  size_t count = 1;
  if (const size_t linears =
          ops_->matmul_several == nullptr ? 0 : LinearsOfOneInput(steps, index);
      linears > 1 && TakesTogether(pass, steps.subspan(index, linears))) {
    count = linears;
    status = RunLinears(pass, steps.subspan(index, linears));
  } else if (const std::optional<PreparedAttention> prepared =
                 ops_->rotate_store == nullptr ? std::nullopt : PreparedAttentionAt(steps, index);
             prepared) {
    count = prepared->count;
    status = RunPrepared(pass, *prepared);
  } else {
    Pass with_result = pass;
    with_result.result_group = ResultGroupOf(pass, index);
    status = std::visit([&](const auto& s) { return RunStep(with_result, s); }, steps[index]);
  }
  if (!status.ok()) return status;
  return count;
}

Status Forward::RunPrepared(const Pass& pass, const PreparedAttention& steps) {
  const float* norms[2] = {nullptr, nullptr};
  if (steps.query_norm != nullptr) {
    const RmsNormStep* const its_steps[] = {steps.query_norm, steps.key_norm};
    for (size_t i = 0; i < 2; ++i) {
      const Result<const float*> weight = Vector(pass, its_steps[i]->weight, i);
      if (!weight.ok()) return weight.status();
      norms[i] = *weight;
    }
  }
  ops_->rotate_store({.query = ArgsOf(pass, *steps.query),
                      .key = ArgsOf(pass, *steps.key),
                      .store = StoreArgsOf(pass, *steps.attention),
                      .query_norm = norms[0],
                      .key_norm = norms[1],
                      .norm_eps = steps.query_norm == nullptr ? 0 : steps.query_norm->eps},
                     compute_.handle());
  Written(steps.attention->query);
  return Attend(pass, *steps.attention);
}

int64_t Forward::ResultGroupOf(const Pass& pass, size_t index) const {
  // Prompts may be wanted in another form than the other tokens.
  if (!ops_->quantizes_results || pass.prompt_begin < pass.tokens) return 0;
  const std::span<const Step> steps = pass.group.description->steps;
  const std::optional<TensorIndex> next = MatrixAfter(steps, index);
  if (!next) return 0;
  TensorId tensor = head_;
  if (*next != kNoTensor) {
    tensor = pass.group.tensors[*next];
  } else if (&pass.group != &groups_.back() || ResultOf(steps[index]) != description_.head_input) {
    return 0;
  }
  const TileLayout& matrix = store_->file().tensors()[tensor].layout;
  const bool wanted =
      ops_->activations(matrix.type) == ActivationForm::kQuantized &&
      static_cast<int64_t>(matrix.cols) == activations_.width(ResultOf(steps[index]));
  return wanted ? ActivationGroup(matrix.type) : 0;
}

std::optional<QuantizedActivations> Forward::QuantizedResult(const Pass& pass,
                                                             Buffer buffer) const {
  if (pass.result_group == 0) return std::nullopt;
  return activations_.Quantized(activations_.width(buffer), pass.result_group);
}

void Forward::WrittenQuantized(const Pass& pass, Buffer buffer) {
  Written(buffer);
  if (pass.result_group != 0) activations_.quantized_content = {buffer, pass.result_group};
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
  const std::optional<QuantizedActivations> quantized = QuantizedResult(pass, step.out);
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
                    .token_end = end,
                    .quantized = quantized ? &*quantized : nullptr},
                   compute_.handle());
  });
  WrittenQuantized(pass, step.out);
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
  const std::optional<QuantizedActivations> quantized = QuantizedResult(pass, step.out);
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
                      .token_end = end,
                      .quantized = quantized ? &*quantized : nullptr},
                     compute_.handle());
  });
  WrittenQuantized(pass, step.out);
  return Status();
}

RopeArgs Forward::ArgsOf(const Pass& pass, const RopeStep& step) const {
  const RopeConfig& rope = description_.ropes[step.rope];
  return {.x = activations_.data(step.data),
          .x_stride = activations_.width(step.data),
          .positions = arrays_.positions,
          .frequencies =
              scratch_ ? scratch_->frequencies(step.rope) : rope_frequencies_[step.rope].data(),
          .magnitude = static_cast<float>(rope.attention_factor),
          .heads = step.heads,
          .head_dim = step.head_dim,
          .dim = rope.dim,
          .token_begin = 0,
          .token_end = pass.tokens};
}

Status Forward::RunStep(const Pass& pass, const RopeStep& step) {
  team_->For(pass.tokens, RangeOf(pass.tokens), [&](int64_t begin, int64_t end) {
    RopeArgs args = ArgsOf(pass, step);
    args.token_begin = begin;
    args.token_end = end;
    ops_->rope(args, compute_.handle());
  });
  Written(step.data);
  return Status();
}

StoreKvArgs Forward::StoreArgsOf(const Pass& pass, const AttentionStep& step) const {
  return {.key = activations_.data(step.key),
          .value = activations_.data(step.value),
          .stride = activations_.width(step.key),
          .layer = kv_cache_->layer(step.layer),
          .slots = arrays_.slots,
          .token_begin = 0,
          .token_end = pass.tokens};
}

Status Forward::RunStep(const Pass& pass, const AttentionStep& step) {
  team_->For(pass.tokens, RangeOf(pass.tokens), [&](int64_t begin, int64_t end) {
    StoreKvArgs args = StoreArgsOf(pass, step);
    args.token_begin = begin;
    args.token_end = end;
    ops_->store_kv(args, compute_.handle());
  });
  return Attend(pass, step);
}

Status Forward::Attend(const Pass& pass, const AttentionStep& step) {
  const KvLayer& layer = kv_cache_->layer(step.layer);
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
  const std::optional<QuantizedActivations> quantized = QuantizedResult(pass, step.out);
  team_->For(pass.tokens, RangeOf(pass.tokens), [&](int64_t begin, int64_t end) {
    ops_->activate({.activation = step.activation,
                    .gate = activations_.data(step.gate),
                    .up = step.up ? activations_.data(*step.up) : nullptr,
                    .stride = width,
                    .width = width,
                    .out = activations_.data(step.out),
                    .out_stride = activations_.width(step.out),
                    .token_begin = begin,
                    .token_end = end,
                    .quantized = quantized ? &*quantized : nullptr},
                   compute_.handle());
  });
  WrittenQuantized(pass, step.out);
  return Status();
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
