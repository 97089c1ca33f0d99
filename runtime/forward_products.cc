// Linear steps: products of matrices, which are most of a pass, and the forms of activations that
// they take.
#include <algorithm>
#include <mutex>
#include <utility>

#include "formats/checked.h"
#include "runtime/forward.h"
#include "runtime/work_division.h"

namespace sluice {
namespace {

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

Result<Forward::Product> Forward::ProductOf(const Pass& pass, const LinearStep& step) {
  const float* bias = nullptr;
  if (step.bias != kNoTensor) {
    Result<const float*> vector = Vector(pass, step.bias);
    if (!vector.ok()) return vector.status();
    bias = *vector;
  }
  return Product{
      pass.group.tensors[step.weight], step.in, bias, step.add_to_out, activations_.data(step.out),
      activations_.width(step.out)};
}

Status Forward::RunStep(const Pass& pass, const LinearStep& step) {
  const Result<Product> product = ProductOf(pass, step);
  if (!product.ok()) return product.status();
  const Status status = Matmul(pass, *product);
  Written(step.out);
  return status;
}

bool Forward::TakesTogether(const Pass& pass, std::span<const Step> steps) const {
  if (pass.prompt_begin < pass.tokens) return false;
  const auto input_of = [&](const Step& step) {
    const TensorId tensor = pass.group.tensors[std::get<LinearStep>(step).weight];
    const WeightType& type = store_->file().tensors()[tensor].layout.type;
    return std::pair(ops_->activations(type), ActivationGroup(type));
  };
  return std::all_of(steps.begin(), steps.end(),
                     [&](const Step& step) { return input_of(step) == input_of(steps.front()); });
}

Status Forward::RunLinears(const Pass& pass, std::span<const Step> steps) {
  std::vector<MatmulArgs> together;
  QuantizedActivations xq = {};
  const auto multiply = [&] {
    if (together.empty()) return;
    ops_->matmul_several(together.data(), static_cast<int64_t>(together.size()), compute_.handle());
    together.clear();
  };
  for (const Step& step : steps) {
    const Result<Product> product = ProductOf(pass, std::get<LinearStep>(step));
    if (!product.ok()) return product.status();
    const TileLayout& layout = store_->file().tensors()[product->tensor].layout;
    const bool quantized = ops_->activations(layout.type) == ActivationForm::kQuantized;
    if (quantized) xq = QuantizeFor(pass, product->in, layout, pass.tokens);
    for (const WeightPart& part : pass.lease.Parts(product->tensor)) {
      const Result<const std::byte*> tiles = pass.lease.Take(part);
      if (!tiles.ok()) return tiles.status();
      MatmulArgs args = ArgsOf(pass, *product, part, *tiles, 0,
                               static_cast<int64_t>(part.num_tiles), pass.tokens);
      if (quantized) args.xq = &xq;
      together.push_back(args);
      if (together.size() == static_cast<size_t>(kMostMatmuls)) multiply();
    }
  }
  multiply();
  for (const Step& step : steps) Written(ResultOf(step));
  return Status();
}

MatmulArgs Forward::ArgsOf(const Pass& pass, const Product& product, const WeightPart& part,
                           const std::byte* tiles, int64_t begin, int64_t end,
                           int64_t tokens) const {
  const TileLayout& layout = store_->file().tensors()[product.tensor].layout;
  const int64_t row = static_cast<int64_t>(part.row_begin) + begin * kTileRows;
  return {
      .layout = &layout,
      .tiles = tiles + static_cast<uint64_t>(begin) * layout.tile_bytes,
      .num_tiles = end - begin,
      .rows = std::min(end * kTileRows, static_cast<int64_t>(part.row_count)) - begin * kTileRows,
      .x = InputOf(pass, product.in),
      .x_stride = activations_.width(product.in),
      .xq = nullptr,
      .tokens = tokens,
      .bias = product.bias == nullptr ? nullptr : product.bias + row,
      .add_to_y = product.add_to_out,
      .y = product.out + row,
      .y_stride = product.out_stride,
      .block_begin = 0,
      .block_end = static_cast<int64_t>(CeilDiv(layout.padded_cols, kBlockChannels))};
}

Status Forward::Matmul(const Pass& pass, const Product& product) {
  const TileLayout& layout = store_->file().tensors()[product.tensor].layout;
  const auto cols = static_cast<int64_t>(layout.cols);
  // Decided by what the tokens are, not by how many.
  const int64_t exact = std::min(pass.prompt_begin, pass.tokens);
  const bool quantized = exact > 0 && ops_->activations(layout.type) == ActivationForm::kQuantized;
  QuantizedActivations xq = {};
  if (quantized) xq = QuantizeFor(pass, product.in, layout, exact);
  Bf16Activations x_bf16 = {};
  if (exact < pass.tokens && f16_) {
    RoundF16(product.in, cols, exact, pass.tokens);
  } else if (exact < pass.tokens) {
    RoundBf16(product.in, cols, exact, pass.tokens);
    x_bf16 = activations_.Bf16(cols);
  }
  ErrorSlot error;
  for (const WeightPart& part : pass.lease.Parts(product.tensor)) {
    if (pass.cancel != nullptr && pass.cancel->load(std::memory_order_relaxed)) {
      return Status(ErrorCode::kCancelled, "the pass was cancelled");
    }
    const auto num_tiles = static_cast<int64_t>(part.num_tiles);
    const int64_t grain = TileGrain(num_tiles, layout.tile_bytes, pass.tokens, team_->threads());
    team_->For(num_tiles, RangeOf(num_tiles, grain), [&](int64_t begin, int64_t end) {
      if (error.failed()) return;
      const Result<const std::byte*> tiles = pass.lease.Take(part);
      if (!tiles.ok()) return error.Set(tiles.status());
      MatmulArgs args = ArgsOf(pass, product, part, *tiles, begin, end, exact);
      if (quantized) args.xq = &xq;
      if (exact > 0) ops_->matmul(args, compute_.handle());
      if (exact == pass.tokens) return;
      args.tokens = pass.tokens - exact;
      args.y += exact * product.out_stride;
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

QuantizedActivations Forward::QuantizeFor(const Pass& pass, Buffer buffer, const TileLayout& matrix,
                                          int64_t tokens) {
  const int64_t group = ActivationGroup(matrix.type);
  Quantize(pass, buffer, static_cast<int64_t>(matrix.cols), group, tokens);
  return activations_.Quantized(static_cast<int64_t>(matrix.cols), group);
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

}  // namespace sluice
