#include "tests/support/cuda_emulation/emulated_gpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <string_view>
#include <utility>

#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"

namespace sluice::test {
namespace {

EmulatedGpu* gpu = nullptr;

}  // namespace

// Collects what is wrong with the arguments of one call.
class CallCheck {
 public:
  CallCheck(std::string operation, CUstream_st* stream)
      : operation_(std::move(operation)), stream_(stream) {
    if (!device()->HasStream(stream)) Add("runs on no stream of the device");
  }

  // `count` elements from `data` on.
  template <typename T>
  void Array(const char* name, const T* data, int64_t count) {
    const uint64_t size_bytes = static_cast<uint64_t>(count) * sizeof(T);
    if (!device()->Holds(data, size_bytes)) return Add(std::string(name) + " is not in its memory");
    gpu->Changes(data, size_bytes);
  }
  // The same of weights, which never change.
  template <typename T>
  void Weights(const char* name, const T* data, int64_t count) {
    const uint64_t size_bytes = static_cast<uint64_t>(count) * sizeof(T);
    if (!device()->Holds(data, size_bytes)) Add(std::string(name) + " is not in its memory");
  }
  // Rows [begin, end) of `width` elements.
  template <typename T>
  void Rows(const char* name, const T* data, int64_t stride, int64_t width, int64_t begin,
            int64_t end) {
    if (end > begin) Array(name, data + begin * stride, (end - begin - 1) * stride + width);
  }
  void Quantized(const QuantizedActivations& xq, int64_t begin, int64_t end) {
    Rows("values", xq.values, xq.padded_cols, xq.padded_cols, begin, end);
    Rows("scales", xq.scales, xq.groups, xq.groups, begin, end);
    Rows("sums", xq.sums, xq.groups, xq.groups, begin, end);
  }
  void Block(const KvLayer& layer, int64_t block) {
    Array("a block of the cache", layer.blocks + block * layer.block_bytes, layer.block_bytes);
  }
  void Require(bool condition, const char* problem) {
    if (!condition) Add(problem);
  }

  // Whether the call may go on; what the work before it wrote can be looked at then.
  bool Good() const { return good_ && !device()->lost(); }
  FakeDevice* device() const { return gpu->device(); }
  void CatchUp() const { device()->CatchUp(stream_); }

 private:
  void Add(const std::string& problem) {
    good_ = false;
    gpu->problems_.push_back(operation_ + ": " + problem);
  }

  std::string operation_;
  CUstream_st* stream_;
  bool good_ = true;
};

namespace {

const OpTable& Cuda() { return cuda_emulation::kCudaTable; }

void CheckQuantize(const QuantizeArgs& a, CallCheck& check) {
  check.Rows("x", a.x, a.x_stride, a.cols, a.token_begin, a.token_end);
  check.Quantized(a.out, a.token_begin, a.token_end);
}

void CheckMatmul(const MatmulArgs& a, CallCheck& check) {
  const Result<GpuLayout> layout = MakeGpuLayout(*a.layout);
  check.Require(layout.ok(), "a type that it does not know");
  if (layout.ok()) check.Weights("tiles", a.tiles, a.num_tiles * layout->tile_bytes);
  if (Cuda().activations(a.layout->type) == ActivationForm::kQuantized) {
    check.Quantized(*a.xq, 0, a.tokens);
  } else {
    check.Rows("x", a.x, a.x_stride, static_cast<int64_t>(a.layout->cols), 0, a.tokens);
  }
  if (a.bias != nullptr) check.Weights("bias", a.bias, a.rows);
  check.Rows("y", a.y, a.y_stride, a.rows, 0, a.tokens);
}

void CheckGatherRows(const GatherRowsArgs& a, CallCheck& check) {
  check.Array("row_tiles", a.row_tiles, a.count);
  check.Array("rows_in_tile", a.rows_in_tile, a.count);
  check.Rows("out", a.out, a.out_stride, static_cast<int64_t>(a.layout->cols), 0, a.count);
}

void CheckQuantizedResult(const QuantizedActivations* quantized, int64_t begin, int64_t end,
                          CallCheck& check) {
  if (quantized != nullptr) check.Quantized(*quantized, begin, end);
}

void CheckRmsNorm(const RmsNormArgs& a, CallCheck& check) {
  check.Rows("x", a.x, a.x_stride, a.width, a.token_begin, a.token_end);
  check.Weights("weight", a.weight, a.width);
  check.Rows("y", a.y, a.y_stride, a.width, a.token_begin, a.token_end);
  CheckQuantizedResult(a.quantized, a.token_begin, a.token_end, check);
}

void CheckLayerNorm(const LayerNormArgs& a, CallCheck& check) {
  check.Rows("x", a.x, a.x_stride, a.width, a.token_begin, a.token_end);
  check.Weights("weight", a.weight, a.width);
  if (a.bias != nullptr) check.Weights("bias", a.bias, a.width);
  check.Rows("y", a.y, a.y_stride, a.width, a.token_begin, a.token_end);
  CheckQuantizedResult(a.quantized, a.token_begin, a.token_end, check);
}

void CheckScaleAdd(const ScaleAddArgs& a, CallCheck& check) {
  check.Rows("y", a.y, a.y_stride, a.width, a.token_begin, a.token_end);
  if (a.x != nullptr) check.Rows("x", a.x, a.x_stride, a.width, a.token_begin, a.token_end);
}

void CheckRope(const RopeArgs& a, CallCheck& check) {
  check.Rows("x", a.x, a.x_stride, a.heads * a.head_dim, a.token_begin, a.token_end);
  check.Array("positions", a.positions + a.token_begin, a.token_end - a.token_begin);
  check.Weights("frequencies", a.frequencies, a.dim / 2);
}

void CheckStoreKv(const StoreKvArgs& a, CallCheck& check) {
  const int64_t width = a.layer.num_kv_heads * a.layer.head_dim;
  check.Rows("key", a.key, a.stride, width, a.token_begin, a.token_end);
  check.Rows("value", a.value, a.stride, width, a.token_begin, a.token_end);
  check.Array("slots", a.slots + a.token_begin, a.token_end - a.token_begin);
  if (!check.Good()) return;
  check.CatchUp();
  const FakeDevice::Access access(check.device());
  for (int64_t t = a.token_begin; t < a.token_end; ++t) {
    check.Block(a.layer, a.slots[t] / kKvBlockTokens);
  }
}

void CheckRotateStore(const RotateStoreArgs& a, CallCheck& check) {
  CheckRope(a.query, check);
  CheckRope(a.key, check);
  CheckStoreKv(a.store, check);
  const int64_t dim = a.store.layer.head_dim;
  if (a.query_norm != nullptr) check.Weights("query_norm", a.query_norm, dim);
  if (a.key_norm != nullptr) check.Weights("key_norm", a.key_norm, dim);
  check.Require(a.query.head_dim == dim, "queries are of another length");
  check.Require(a.key.x == a.store.key && a.key.x_stride == a.store.stride &&
                    a.key.heads == a.store.layer.num_kv_heads &&
                    a.key.head_dim == a.store.layer.head_dim,
                "the rotated keys are not those that are stored");
  check.Require(a.query.token_begin == a.store.token_begin &&
                    a.key.token_begin == a.store.token_begin &&
                    a.query.token_end == a.store.token_end && a.key.token_end == a.store.token_end,
                "the tokens are not the same");
}

// The token's own node is the last one that it sees.
bool TreeIsGood(const AttentionArgs& a, int64_t t) {
  const int64_t nodes = 64 - std::countl_zero(a.ancestors[t]);
  return a.tree_begin[t] >= 0 && a.tree_begin[t] + nodes == a.lengths[t];
}

void CheckTables(const AttentionArgs& a, CallCheck* check) {
  const int64_t begin = a.item_begin / a.layer.num_kv_heads;
  const int64_t end = (a.item_end + a.layer.num_kv_heads - 1) / a.layer.num_kv_heads;
  int64_t run = 0;
  for (int64_t t = begin; t < end && check->Good(); ++t) {
    const int64_t blocks = (a.lengths[t] + kKvBlockTokens - 1) / kKvBlockTokens;
    check->Require(a.lengths[t] >= 1 && a.lengths[t] <= a.longest_length, "a length is wrong");
    run = t > begin && a.block_tables[t] == a.block_tables[t - 1] ? run + 1 : 1;
    check->Require(run <= a.longest_run, "a run is longer than it says");
    check->Array("a block table", a.block_tables[t], blocks);
    if (a.tree_begin != nullptr) check->Require(TreeIsGood(a, t), "a tree is wrong");
    for (int64_t i = 0; i < blocks && check->Good(); ++i) {
      check->Block(a.layer, a.block_tables[t][i]);
    }
  }
}

void CheckAttention(const AttentionArgs& a, CallCheck& check) {
  const int64_t begin = a.item_begin / a.layer.num_kv_heads;
  const int64_t end = (a.item_end + a.layer.num_kv_heads - 1) / a.layer.num_kv_heads;
  const int64_t width = a.num_heads * a.layer.head_dim;
  check.Rows("query", a.query, a.query_stride, width, begin, end);
  check.Rows("out", a.out, a.out_stride, width, begin, end);
  check.Array("block_tables", a.block_tables + begin, end - begin);
  check.Array("lengths", a.lengths + begin, end - begin);
  if (a.slopes != nullptr) check.Weights("slopes", a.slopes, a.num_heads);
  check.Require((a.tree_begin == nullptr) == (a.ancestors == nullptr), "half a tree");
  if (a.tree_begin != nullptr) {
    check.Array("tree_begin", a.tree_begin + begin, end - begin);
    check.Array("ancestors", a.ancestors + begin, end - begin);
  }
  if (a.scratch_size > 0) check.Array("scratch", a.scratch, a.scratch_size);
  if (!check.Good()) return;
  check.CatchUp();
  const FakeDevice::Access access(check.device());
  CheckTables(a, &check);
  const int64_t counters = std::min(a.scratch_size, kGpuAttentionCounters);
  check.Require(std::all_of(a.scratch, a.scratch + counters,
                            [](float counter) { return std::bit_cast<uint32_t>(counter) == 0; }),
                "the counters are not zero");
}

void CheckActivate(const ActivateArgs& a, CallCheck& check) {
  check.Rows("gate", a.gate, a.stride, a.width, a.token_begin, a.token_end);
  if (a.up != nullptr) check.Rows("up", a.up, a.stride, a.width, a.token_begin, a.token_end);
  check.Rows("out", a.out, a.out_stride, a.width, a.token_begin, a.token_end);
  CheckQuantizedResult(a.quantized, a.token_begin, a.token_end, check);
}

void CheckSoftcap(const SoftcapArgs& a, CallCheck& check) {
  check.Array("x", a.x + a.begin, a.end - a.begin);
}

void CheckTopK(const TopKArgs& a, CallCheck& check) {
  check.Rows("x", a.x, a.x_stride, a.width, 0, a.rows);
  check.Array("values", a.values, a.rows * a.count);
  check.Array("indices", a.indices, a.rows * a.count);
  check.Array("weight_sums", a.weight_sums, a.rows);
  check.Require(a.count >= 1 && a.count <= std::min(a.width, kMostTopK), "a count is wrong");
}

void CheckRoundF16(const RoundF16Args& a, CallCheck& check) {
  check.Rows("x", a.x, a.x_stride, a.cols, a.token_begin, a.token_end);
  check.Rows("values", a.out.values, a.out.padded_cols, a.out.padded_cols, a.token_begin,
             a.token_end);
  check.Array("exponents", a.out.exponents + a.token_begin, a.token_end - a.token_begin);
  check.Require(a.out.padded_cols == PaddedF16Cols(a.cols), "rows are not padded");
}

void CheckUnpackF16(const UnpackF16Args& a, CallCheck& check) {
  const Result<GpuLayout> layout = MakeGpuLayout(*a.layout);
  check.Require(layout.ok(), "a type that it does not know");
  if (!layout.ok()) return;
  check.Weights("tiles", a.tiles, a.num_tiles * layout->tile_bytes);
  check.Array("out", a.out, a.num_tiles * kTileRows * PaddedF16Cols(layout->cols));
}

void CheckShiftRows(const ShiftRowsArgs& a, CallCheck& check) {
  check.Rows("y", a.y, a.y_stride, a.rows, a.token_begin, a.token_end);
  if (a.bias != nullptr) check.Weights("bias", a.bias, a.rows);
  check.Array("exponents", a.exponents + a.token_begin, a.token_end - a.token_begin);
}

// Arguments, and what they point to that need not outlive the call.
template <typename Args>
struct Kept {
  explicit Kept(const Args& a) : args(a) {}
  const Args& get() const { return args; }
  Args args;
};
template <>
struct Kept<MatmulArgs> {
  explicit Kept(const MatmulArgs& a) : args(a), layout(*a.layout) {
    if (a.xq != nullptr) xq = *a.xq;
  }
  MatmulArgs get() const {
    MatmulArgs all = args;
    all.layout = &layout;
    all.xq = &xq;
    return all;
  }
  MatmulArgs args;
  TileLayout layout;
  QuantizedActivations xq = {};
};
// Norms and activations, which may quantize their results.
template <typename Args>
struct KeptWithQuantized {
  explicit KeptWithQuantized(const Args& a) : args(a) {
    if (a.quantized != nullptr) quantized = *a.quantized;
  }
  Args get() const {
    Args all = args;
    if (args.quantized != nullptr) all.quantized = &quantized;
    return all;
  }
  Args args;
  QuantizedActivations quantized = {};
};
template <>
struct Kept<RmsNormArgs> : KeptWithQuantized<RmsNormArgs> {
  using KeptWithQuantized::KeptWithQuantized;
};
template <>
struct Kept<LayerNormArgs> : KeptWithQuantized<LayerNormArgs> {
  using KeptWithQuantized::KeptWithQuantized;
};
template <>
struct Kept<ActivateArgs> : KeptWithQuantized<ActivateArgs> {
  using KeptWithQuantized::KeptWithQuantized;
};
template <typename Args>
struct KeptWithLayout {
  explicit KeptWithLayout(const Args& a) : args(a), layout(*a.layout) {}
  Args get() const {
    Args all = args;
    all.layout = &layout;
    return all;
  }
  Args args;
  TileLayout layout;
};
template <>
struct Kept<GatherRowsArgs> : KeptWithLayout<GatherRowsArgs> {
  using KeptWithLayout::KeptWithLayout;
};
template <>
struct Kept<UnpackF16Args> : KeptWithLayout<UnpackF16Args> {
  using KeptWithLayout::KeptWithLayout;
};

// "quantize" of &OpTable::quantize, as compilers write it.
template <auto kSlot>
std::string NameOf() {
  const std::string_view function = __PRETTY_FUNCTION__;
  const size_t begin = function.find("OpTable::") + std::string_view("OpTable::").size();
  return std::string(function.substr(begin, function.find_first_of(";],", begin) - begin));
}

// An operation of the table: checked and run, or recorded to be checked and run later.
template <auto kSlot, auto kCheck, typename Args>
void Checked(const Args& args, CUstream_st* stream) {
  FakeDevice* const device = gpu->device();
  if (device->recording(stream)) {
    device->Record(stream, [kept = Kept<Args>(args), stream] {
      Checked<kSlot, kCheck, Args>(kept.get(), stream);
    });
    return;
  }
  gpu->ForgetChanges();
  CallCheck check(NameOf<kSlot>(), stream);
  kCheck(args, check);
  if (check.Good()) (Cuda().*kSlot)(args, stream);
}

// The same of a list of products, none of which may read what another one writes.
void CheckedMatmuls(const MatmulArgs* args, int64_t count, CUstream_st* stream) {
  FakeDevice* const device = gpu->device();
  if (device->recording(stream)) {
    std::vector<Kept<MatmulArgs>> kept(args, args + count);
    device->Record(stream, [kept = std::move(kept), stream] {
      std::vector<MatmulArgs> all;
      for (const Kept<MatmulArgs>& one : kept) all.push_back(one.get());
      CheckedMatmuls(all.data(), static_cast<int64_t>(all.size()), stream);
    });
    return;
  }
  gpu->ForgetChanges();
  CallCheck check(NameOf<&OpTable::matmul_several>(), stream);
  check.Require(count >= 0 && count <= kMostMatmuls, "too many products");
  for (int64_t i = 0; i < count; ++i) CheckMatmul(args[i], check);
  if (check.Good()) Cuda().matmul_several(args, count, stream);
}

}  // namespace

EmulatedGpu::EmulatedGpu(FakeDevice* device) : device_(device) {
  gpu = this;
  // The memory is open while a kernel runs.
  auto access = std::make_shared<std::optional<FakeDevice::Access>>();
  cuda_emulation::SetLaunchHooks(
      [this, access](CUstream_st* stream) {
        ++launches_;
        device_->CatchUp(stream);
        access->emplace(device_);
      },
      [access](CUstream_st*) { access->reset(); });
  cuda_emulation::SetEarlierWorkHooks([this] { Invert(); }, [this] { Invert(); });
}

EmulatedGpu::~EmulatedGpu() {
  cuda_emulation::SetEarlierWorkHooks({}, {});
  cuda_emulation::SetLaunchHooks({}, {});
  gpu = nullptr;
  for (const std::string& problem : problems_) ADD_FAILURE() << problem;
}

void EmulatedGpu::Changes(const void* data, uint64_t size_bytes) {
  // The device's memory, which it may write.
  auto* begin = static_cast<std::byte*>(const_cast<void*>(data));
  changes_.push_back({begin, begin + size_bytes});
}

// Twice is as before. Arrays of a call overlap, and are inverted once.
void EmulatedGpu::Invert() {
  std::sort(changes_.begin(), changes_.end());
  std::byte* done = nullptr;
  for (const auto& [begin, end] : changes_) {
    for (std::byte* byte = std::max(begin, done); byte < end; ++byte) *byte = ~*byte;
    done = std::max(done, end);
  }
}

std::vector<std::string> EmulatedGpu::TakeProblems() { return std::exchange(problems_, {}); }

const OpTable& EmulatedGpu::table() {
  static const OpTable table = [] {
    OpTable checked = Cuda();
    checked.quantize = Checked<&OpTable::quantize, CheckQuantize>;
    checked.matmul = Checked<&OpTable::matmul, CheckMatmul>;
    checked.matmul_several = CheckedMatmuls;
    checked.gather_rows = Checked<&OpTable::gather_rows, CheckGatherRows>;
    checked.rms_norm = Checked<&OpTable::rms_norm, CheckRmsNorm>;
    checked.layer_norm = Checked<&OpTable::layer_norm, CheckLayerNorm>;
    checked.scale_add = Checked<&OpTable::scale_add, CheckScaleAdd>;
    checked.rope = Checked<&OpTable::rope, CheckRope>;
    checked.store_kv = Checked<&OpTable::store_kv, CheckStoreKv>;
    checked.rotate_store = Checked<&OpTable::rotate_store, CheckRotateStore>;
    checked.attention = Checked<&OpTable::attention, CheckAttention>;
    checked.activate = Checked<&OpTable::activate, CheckActivate>;
    checked.softcap = Checked<&OpTable::softcap, CheckSoftcap>;
    checked.top_k = Checked<&OpTable::top_k, CheckTopK>;
    checked.round_f16 = Checked<&OpTable::round_f16, CheckRoundF16>;
    checked.unpack_f16 = Checked<&OpTable::unpack_f16, CheckUnpackF16>;
    checked.shift_rows = Checked<&OpTable::shift_rows, CheckShiftRows>;
    return checked;
  }();
  return table;
}

}  // namespace sluice::test
