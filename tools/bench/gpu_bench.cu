// Speed of the CUDA operations against microbenchmarks of the same run: what a read of memory and
// the tensor cores' int8 products reach on this GPU. JSON to the file given, tables to the
// terminal.
//
// Usage: gpu_bench JSON_FILE
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/cuda/f16_products.h"
#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"
#include "tools/bench/gpu_timing.h"

namespace sluice {
namespace {

struct ReadArgs {
  const uint4* data;
  int64_t count;
  uint32_t* out;
};

constexpr int kLoadsAtOnce = 8;

__global__ void ReadKernel(ReadArgs args) {
  uint32_t sum = 0;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const auto add = [&](const uint4& words) { sum += words.x ^ words.y ^ words.z ^ words.w; };
  int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  // With no condition between them, so that all of a thread's loads are on their way at once.
  for (; i + (kLoadsAtOnce - 1) * threads < args.count; i += kLoadsAtOnce * threads) {
    uint4 words[kLoadsAtOnce];
#pragma unroll
    for (int j = 0; j < kLoadsAtOnce; ++j) words[j] = __ldcs(args.data + i + j * threads);
#pragma unroll
    for (int j = 0; j < kLoadsAtOnce; ++j) add(words[j]);
  }
  for (; i < args.count; i += threads) add(__ldcs(args.data + i));
  if (sum == 0x12345678u) *args.out = sum;  // so that the loads stay
}

constexpr int kMmaChains = 8;
constexpr int kMmaLoops = 4096;

__global__ void MmaKernel(uint32_t* out) {
  // Different numbers, so that no compiler finds the chains equal.
  int32_t sums[kMmaChains][4];
  for (int j = 0; j < kMmaChains; ++j) {
    for (int k = 0; k < 4; ++k) sums[j][k] = static_cast<int32_t>(threadIdx.x) * (4 * j + k + 1);
  }
  const uint32_t a[4] = {threadIdx.x, threadIdx.x + 1, threadIdx.x + 2, threadIdx.x + 3};
  for (int i = 0; i < kMmaLoops; ++i) {
#pragma unroll
    for (int j = 0; j < kMmaChains; ++j) cuda::MmaU8S8(sums[j], a, threadIdx.x, i);
  }
  int32_t all = 0;
  for (auto& chain : sums) all ^= chain[0] ^ chain[1] ^ chain[2] ^ chain[3];
  if (all == 0x12345678) *out = static_cast<uint32_t>(all);
}

struct Result {
  std::string name;
  double seconds, value, share;
  const char* unit;
};

class Bench {
 public:
  Bench(const cudaDeviceProp& gpu, const char* json_path)
      : gpu_(gpu), json_path_(json_path), out_(Allocate<uint32_t>(1, 0)) {}

  void Peaks() {
    const int64_t bytes =
        std::min<int64_t>(int64_t{2} << 30, static_cast<int64_t>(gpu_.totalGlobalMem) / 4);
    const ReadArgs args = {AllocateRandom<uint4>(bytes / 16), bytes / 16, out_};
    const int blocks = gpu_.multiProcessorCount * 8;
    double seconds =
        Seconds(4, [&](int, cudaStream_t s) { ReadKernel<<<blocks, 256, 0, s>>>(args); });
    read_ = static_cast<double>(bytes) / seconds;
    Add({"read of memory", seconds, read_ / 1e9, 1, "GB/s"});
    seconds = Seconds(2, [&](int, cudaStream_t s) {
      MmaKernel<<<gpu_.multiProcessorCount * 2, 512, 0, s>>>(out_);
    });
    const double operations =
        2.0 * 16 * 8 * 32 * kMmaChains * kMmaLoops * 16 * 2 * gpu_.multiProcessorCount;
    mma_ = operations / seconds;
    Add({"mma int8", seconds, mma_ / 1e12, 1, "TOP/s"});
  }

  // One matrix of more than 100 MB, as often as it takes to fill the L2 cache four times.
  void Matmuls(const WeightType& type) {
    constexpr int64_t kRows = 8192;
    constexpr int64_t kCols = 28672;
    const int64_t group = ActivationGroup(type);
    const TileLayout layout = *MakeTileLayout(type, kRows, kCols, 16);
    const GpuLayout gpu = *MakeGpuLayout(layout);
    const int64_t tiles = kRows / 16;
    const int64_t bytes = tiles * gpu.tile_bytes;
    const int copies = static_cast<int>(4 * int64_t{gpu_.l2CacheSize} / bytes) + 2;
    std::vector<std::byte*> matrices;
    for (int i = 0; i < copies; ++i) matrices.push_back(AllocateRandom<std::byte>(bytes));
    constexpr int64_t kMostTokens = 2048;
    const int64_t groups = kCols / group;
    const QuantizedActivations xq = {AllocateRandom<int8_t>(kMostTokens * kCols),
                                     Allocate<float>(kMostTokens * groups, 0),
                                     Allocate<int32_t>(kMostTokens * groups, 0),
                                     group,
                                     groups,
                                     kCols};
    auto* y = Allocate<float>(kMostTokens * kRows, 0);
    for (int64_t tokens : {1, 2, 4, 8, 16, 32, 64, 512, 1024, 2048}) {
      const double seconds = Seconds(tokens > 64 ? 2 : 2 * copies, [&](int i, cudaStream_t s) {
        cuda::kCudaTable.matmul({&layout, matrices[static_cast<size_t>(i % copies)], tiles, kRows,
                                 nullptr, 0, &xq, tokens, nullptr, false, y, kRows, 0, kCols / 128},
                                s);
      });
      const std::string name = WeightTypeName(type) + ", " + std::to_string(tokens) + " tokens";
      const double operations = 2.0 * kRows * kCols * static_cast<double>(tokens) / seconds;
      if (tokens <= 64) {
        const double rate = static_cast<double>(bytes) / seconds;
        Add({name, seconds, rate / 1e9, rate / read_, "GB/s"});
      } else {
        Add({name, seconds, operations / 1e12, operations / mma_, "TOP/s"});
      }
    }
    for (std::byte* matrix : matrices) cudaFree(matrix);
    for (void* memory : {static_cast<void*>(xq.values), static_cast<void*>(xq.scales),
                         static_cast<void*>(xq.sums), static_cast<void*>(y)}) {
      cudaFree(memory);
    }
  }

  // The products of layers of 8 billion weights, each after the quantization of its activations, as
  // steps of a model have them: matrix by matrix, and those of one input together; with launches
  // that overlap, where the GPU can, and without. Enough layers that the L2 cache is no help.
  void Layers(const WeightType& type) {
    const std::vector<LayerInput> inputs = {
        {4096, {4096, 1024, 1024}}, {4096, {4096}}, {4096, {14336, 14336}}, {14336, {4096}}};
    int64_t layer_bytes = 0;
    for (const LayerInput& input : inputs) layer_bytes += Bytes(type, input);
    const int layers = static_cast<int>(4 * int64_t{gpu_.l2CacheSize} / layer_bytes) + 2;
    constexpr int64_t kMostTokens = 512;
    std::vector<void*> memory;
    const auto take = [&memory](auto* data) {
      memory.push_back(data);
      return data;
    };
    float* x = take(AllocateRandom<float>(kMostTokens * 14336));
    float* y = take(Allocate<float>(kMostTokens * 2 * 14336, 0));
    const int64_t group = ActivationGroup(type);
    const QuantizedActivations room = {take(Allocate<int8_t>(kMostTokens * 14336, 0)),
                                       take(Allocate<float>(kMostTokens * 14336 / group, 0)),
                                       take(Allocate<int32_t>(kMostTokens * 14336 / group, 0)),
                                       group,
                                       0,
                                       0};
    std::vector<std::byte*> weights;
    for (int i = 0; i < layers; ++i)
      weights.push_back(take(AllocateRandom<std::byte>(layer_bytes)));
    for (const int64_t tokens : {1, 4, 16, 512}) {
      for (const bool overlap : {false, true}) {
        if (overlap && gpu_.major < 9) continue;
        cuda::launches_overlap = overlap;
        for (const bool together : {false, true}) {
          const double seconds = Seconds(layers, [&](int i, cudaStream_t s) {
            const std::byte* at = weights[static_cast<size_t>(i)];
            for (const LayerInput& input : inputs) {
              StartProducts(type, input, at, x, room, y, tokens, together, s);
              at += Bytes(type, input);
            }
          });
          AddLayer("layer of 8B, " + WeightTypeName(type) + ", " + std::to_string(tokens) +
                       " tokens, " + (together ? "inputs together" : "matrix by matrix") +
                       (overlap ? ", overlapping" : ""),
                   static_cast<double>(layer_bytes), tokens, seconds);
        }
      }
    }
    cuda::launches_overlap = false;
    for (void* data : memory) cudaFree(data);
  }

  // The matrices of a layer of 8 billion weights with a prompt of 4,096 tokens: int8 activations on
  // the tensor cores, the panel in f16 through cuBLASLt with all that it needs, and cuBLASLt alone
  // with weights that lie there in f16. Shares are of the last one's rate. Without the library the
  // first way alone.
  void Prefill(const WeightType& type) {
    sluice::Result<CublasLt> found = CublasLt::Load(CublasLt::Libraries());
    std::optional<CublasLt> library;
    if (found.ok()) {
      library.emplace(std::move(*found));
      const Status opened = library->Open(Allocate<std::byte>(kCublasLtWorkspaceBytes, 0),
                                          kCublasLtWorkspaceBytes, kPromptTokens);
      if (!opened.ok()) {
        std::printf("prefill in f16: skipped: %s\n", opened.message().c_str());
        library.reset();
      }
    } else {
      std::printf("prefill in f16: skipped: %s\n", found.status().message().c_str());
    }
    PrefillTimes layer;
    for (const auto& [rows, cols, times] :
         {std::tuple(4096, 4096, 2), std::tuple(1024, 4096, 2), std::tuple(14336, 4096, 2),
          std::tuple(4096, 14336, 1)}) {
      const PrefillTimes once = PrefillOf(type, rows, cols, library ? &*library : nullptr);
      AddPrefill(type, std::to_string(rows) + " x " + std::to_string(cols), 1.0 * rows * cols,
                 once);
      layer.int8 += times * once.int8;
      layer.panel += times * once.panel;
      layer.alone += times * once.alone;
    }
    AddPrefill(type, "a layer of 8B", 2.0 * 4096 * 4096 + 2.0 * 1024 * 4096 + 3.0 * 14336 * 4096,
               layer);
  }

  struct AttentionShape {
    const char* name;
    int64_t heads, kv_heads, dim;
  };

  // `sequences` of 8k each, one new token for each; blocks in order, or spread over the cache.
  void Attention(const AttentionShape& shape, int sequences, bool spread) {
    constexpr int64_t kLength = 8192;
    constexpr int64_t kBlocks = kLength / 16;
    const int64_t block_bytes = shape.kv_heads * 2 * 16 * shape.dim * 2;
    const int64_t all = kBlocks * sequences;
    // As many caches as it takes to fill the L2 cache four times.
    const int copies = static_cast<int>(4 * int64_t{gpu_.l2CacheSize} / (all * block_bytes)) + 2;
    std::vector<std::byte*> caches;
    for (int i = 0; i < copies; ++i) caches.push_back(AllocateRandom<std::byte>(all * block_bytes));
    std::vector<uint32_t> ids(static_cast<size_t>(all));
    for (int64_t i = 0; i < all; ++i) {
      // 7919 is a prime that divides no number of blocks here.
      ids[static_cast<size_t>(i)] = static_cast<uint32_t>(spread ? i * 7919 % all : i);
    }
    std::vector<void*> memory(caches.begin(), caches.end());
    const auto kept = [&memory]<typename T>(T* data) {
      memory.push_back(data);
      return data;
    };
    auto* tables = kept(Allocate<uint32_t>(all, 0));
    Check(cudaMemcpy(tables, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice), "tables");
    std::vector<const uint32_t*> table_pointers;
    for (int i = 0; i < sequences; ++i) table_pointers.push_back(tables + i * kBlocks);
    auto* pointers = kept(Allocate<const uint32_t*>(sequences, 0));
    Check(cudaMemcpy(pointers, table_pointers.data(), table_pointers.size() * sizeof(void*),
                     cudaMemcpyHostToDevice),
          "tables");
    const std::vector<int64_t> lengths(static_cast<size_t>(sequences), kLength);
    auto* device_lengths = kept(Allocate<int64_t>(sequences, 0));
    Check(cudaMemcpy(device_lengths, lengths.data(), lengths.size() * 8, cudaMemcpyHostToDevice),
          "lengths");
    AttentionArgs args = {};
    args.query = kept(AllocateRandom<float>(sequences * shape.heads * shape.dim));
    args.query_stride = shape.heads * shape.dim;
    args.num_heads = shape.heads;
    args.layer = {nullptr, block_bytes, KvType::kF16, shape.kv_heads, shape.dim};
    args.block_tables = pointers;
    args.lengths = device_lengths;
    args.scale = 1 / std::sqrt(static_cast<float>(shape.dim));
    args.out = kept(Allocate<float>(sequences * shape.heads * shape.dim, 0));
    args.out_stride = shape.heads * shape.dim;
    args.item_end = sequences * shape.kv_heads;
    args.longest_length = kLength;
    args.longest_run = 1;
    args.scratch_size = GpuAttentionScratch(sequences, shape.heads, shape.dim, kLength);
    args.scratch = kept(Allocate<float>(args.scratch_size, 0));
    const double seconds = Seconds(2 * copies, [&](int i, cudaStream_t s) {
      args.layer.blocks = caches[static_cast<size_t>(i % copies)];
      cuda::kCudaTable.attention(args, s);
    });
    for (void* data : memory) cudaFree(data);
    const double rate = static_cast<double>(all * block_bytes) / seconds;
    Add({std::string("decode attention, ") + shape.name + ", " + std::to_string(sequences) +
             " sequences of 8k" + (spread ? ", blocks spread" : ", blocks in order"),
         seconds, rate / 1e9, rate / read_, "GB/s"});
  }

  // The best logits of some rows of a vocabulary of 128,256, which come from the L2 cache.
  void TopK(int64_t rows, int64_t count) {
    constexpr int64_t kVocab = 128256;
    std::vector<float> logits(static_cast<size_t>(rows * kVocab));
    uint32_t state = 1;
    for (float& logit : logits) {
      state = state * 1664525u + 1013904223u;
      logit = static_cast<float>(state >> 8) / static_cast<float>(1 << 20);
    }
    auto* x = Allocate<float>(rows * kVocab, 0);
    Check(cudaMemcpy(x, logits.data(), logits.size() * 4, cudaMemcpyHostToDevice), "logits");
    auto* values = Allocate<float>(rows * count, 0);
    auto* indices = Allocate<int32_t>(rows * count, 0);
    auto* sums = Allocate<float>(rows, 0);
    const double seconds = Seconds(8, [&](int, cudaStream_t s) {
      cuda::kCudaTable.top_k({x, kVocab, rows, kVocab, count, values, indices, sums}, s);
    });
    const double rate = static_cast<double>(rows * kVocab) * 4 / seconds;
    Add({"top " + std::to_string(count) + " of 128256, " + std::to_string(rows) + " rows", seconds,
         rate / 1e9, rate / read_, "GB/s"});
    for (void* memory : {static_cast<void*>(x), static_cast<void*>(values),
                         static_cast<void*>(indices), static_cast<void*>(sums)}) {
      cudaFree(memory);
    }
  }

  bool WriteJson() const {
    std::FILE* file = std::fopen(json_path_, "w");
    if (file == nullptr) return false;
    std::fprintf(file, "{\"gpu\": \"%s\", \"compute_capability\": \"%d.%d\", \"results\": [",
                 gpu_.name, gpu_.major, gpu_.minor);
    for (size_t i = 0; i < results_.size(); ++i) {
      const Result& r = results_[i];
      std::fprintf(file,
                   "%s\n  {\"name\": \"%s\", \"seconds\": %.4g, \"value\": %.4g, \"unit\": \"%s\", "
                   "\"share\": %.4f}",
                   i == 0 ? "" : ",", r.name.c_str(), r.seconds, r.value, r.unit, r.share);
    }
    std::fprintf(file, "\n]}\n");
    return std::fclose(file) == 0;
  }

 private:
  static constexpr int64_t kPromptTokens = 4096;

  // Matrices of one input, and their rows.
  struct LayerInput {
    int64_t cols;
    std::vector<int64_t> rows;
  };
  static TileLayout LayoutOf(const WeightType& type, int64_t rows, int64_t cols) {
    return *MakeTileLayout(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), 16);
  }
  static int64_t Bytes(const WeightType& type, const LayerInput& input) {
    int64_t bytes = 0;
    for (const int64_t rows : input.rows) {
      bytes += rows / 16 * MakeGpuLayout(LayoutOf(type, rows, input.cols))->tile_bytes;
    }
    return bytes;
  }

  static void StartProducts(const WeightType& type, const LayerInput& input,
                            const std::byte* weights, const float* x,
                            const QuantizedActivations& room, float* y, int64_t tokens,
                            bool together, cudaStream_t stream) {
    QuantizedActivations xq = room;
    xq.groups = input.cols / room.group_size;
    xq.padded_cols = input.cols;
    cuda::kCudaTable.quantize({x, input.cols, input.cols, xq, 0, tokens}, stream);
    std::vector<TileLayout> layouts;
    for (const int64_t rows : input.rows) layouts.push_back(LayoutOf(type, rows, input.cols));
    std::vector<MatmulArgs> all;
    for (size_t i = 0; i < layouts.size(); ++i) {
      const int64_t rows = input.rows[i];
      all.push_back({&layouts[i], weights, rows / 16, rows, nullptr, 0, &xq, tokens, nullptr, false,
                     y, rows, 0, input.cols / 128});
      weights += rows / 16 * MakeGpuLayout(layouts[i])->tile_bytes;
      y += tokens * rows;
    }
    if (together) {
      cuda::kCudaTable.matmul_several(all.data(), static_cast<int64_t>(all.size()), stream);
    } else {
      for (const MatmulArgs& args : all) cuda::kCudaTable.matmul(args, stream);
    }
  }

  void AddLayer(const std::string& name, double bytes, int64_t tokens, double seconds) {
    constexpr double kWeights = 2.0 * 4096 * 4096 + 2.0 * 1024 * 4096 + 3.0 * 14336 * 4096;
    if (tokens <= 64) {
      return Add({name, seconds, bytes / seconds / 1e9, bytes / seconds / read_, "GB/s"});
    }
    const double operations = 2 * kWeights * static_cast<double>(tokens) / seconds;
    Add({name, seconds, operations / 1e12, operations / mma_, "TOP/s"});
  }

  // Seconds; 0: not measured.
  struct PrefillTimes {
    double int8 = 0, panel = 0, alone = 0;
  };

  static PrefillTimes PrefillOf(const WeightType& type, int64_t rows, int64_t cols,
                                CublasLt* library) {
    const TileLayout layout =
        *MakeTileLayout(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), 16);
    const GpuLayout gpu = *MakeGpuLayout(layout);
    const int64_t group = ActivationGroup(type);
    const int64_t groups = cols / group;
    std::vector<void*> memory;
    const auto take = [&memory]<typename T>(int64_t count, int fill, T) {
      T* data = Allocate<T>(count, fill);
      memory.push_back(data);
      return data;
    };
    // Constant bytes would let the clock rise.
    auto* tiles = AllocateRandom<std::byte>(rows / 16 * gpu.tile_bytes);
    auto* x = AllocateRandom<float>(kPromptTokens * cols);
    memory.assign({tiles, x});
    float* y = take(kPromptTokens * rows, 0, float{});
    const QuantizedActivations xq = {take(kPromptTokens * cols, 1, int8_t{}),
                                     take(kPromptTokens * groups, 0, float{}),
                                     take(kPromptTokens * groups, 0, int32_t{}),
                                     group,
                                     groups,
                                     cols};
    MatmulArgs args = {&layout,       tiles,   rows / 16, rows, nullptr, 0, &xq,
                       kPromptTokens, nullptr, false,     y,    rows,    0, cols / 128};
    PrefillTimes times;
    times.int8 = Seconds(2, [&](int, cudaStream_t s) {
      cuda::kCudaTable.quantize({x, cols, cols, xq, 0, kPromptTokens}, s);
      cuda::kCudaTable.matmul(args, s);
    });
    if (library != nullptr) {
      const int64_t values = PanelValues(rows, cols);
      uint16_t* panel = take(std::max(values, rows * cols), 0, uint16_t{});
      const F16Activations x16 = {take(kPromptTokens * cols, 0, uint16_t{}),
                                  take(kPromptTokens, 0, int32_t{}), cols};
      const F16Products products(&cuda::kCudaTable, library, panel, values);
      const auto check = [](const Status& status) {
        if (status.ok()) return;
        std::fprintf(stderr, "gpu_bench: %s\n", status.message().c_str());
        std::exit(1);
      };
      times.panel = Seconds(2, [&](int, cudaStream_t s) {
        cuda::kCudaTable.round_f16({x, cols, cols, x16, 0, kPromptTokens}, s);
        check(products.Multiply(args, x16, s));
      });
      times.alone = Seconds(2, [&](int, cudaStream_t s) {
        check(library->Multiply(
            {panel, cols, x16.values, cols, y, rows, rows, cols, kPromptTokens, false}, s));
      });
    }
    for (void* data : memory) cudaFree(data);
    return times;
  }

  void AddPrefill(const WeightType& type, const std::string& shape, double weights,
                  const PrefillTimes& times) {
    const double operations = 2 * weights * static_cast<double>(kPromptTokens);
    const auto add = [&](const char* way, double seconds) {
      if (seconds == 0) return;
      Add({"4096 tokens, " + WeightTypeName(type) + " " + shape + ", " + way, seconds,
           operations / seconds / 1e12, times.alone / seconds, "TFLOP/s"});
    };
    add("int8", times.int8);
    add("panel in f16", times.panel);
    add("cuBLASLt f16 alone", times.alone);
  }

  void Add(const Result& r) {
    if (results_.empty()) std::printf("| | us | | share of the peak |\n|---|---|---|---|\n");
    std::printf("| %s | %.1f | %.4g %s | %.3f |\n", r.name.c_str(), r.seconds * 1e6, r.value,
                r.unit, r.share);
    std::fflush(stdout);
    results_.push_back(r);
    WriteJson();  // whatever ends the run, what there is stays
  }

  const cudaDeviceProp gpu_;
  const char* const json_path_;
  uint32_t* out_;
  double read_ = 0;
  double mma_ = 0;
  std::vector<Result> results_;
};

int Run(const char* json_path) {
  cudaDeviceProp gpu = {};
  Check(cudaGetDeviceProperties(&gpu, 0), "the GPU");
  std::printf("%s, compute capability %d.%d, %d multiprocessors, %d MB of L2 cache\n\n", gpu.name,
              gpu.major, gpu.minor, gpu.multiProcessorCount, gpu.l2CacheSize >> 20);
  Bench bench(gpu, json_path);
  bench.Peaks();
  for (const WeightType& type : {WeightType{WeightKind::kInt4, WeightOffset::kNone, 128},
                                 WeightType{WeightKind::kInt4, WeightOffset::kNone, 64},
                                 WeightType{WeightKind::kInt4, WeightOffset::kNone, 32},
                                 WeightType{WeightKind::kInt8, WeightOffset::kNone, 0},
                                 WeightType{WeightKind::kQ4K, WeightOffset::kMinimum, 32},
                                 WeightType{WeightKind::kQ6K, WeightOffset::kNone, 16}}) {
    bench.Matmuls(type);
  }
  bench.Layers({WeightKind::kInt4, WeightOffset::kNone, 128});
  bench.Layers({WeightKind::kQ4K, WeightOffset::kMinimum, 32});
  bench.Prefill({WeightKind::kInt4, WeightOffset::kNone, 128});
  bench.Prefill({WeightKind::kQ6K, WeightOffset::kNone, 16});
  for (const Bench::AttentionShape& shape :
       {Bench::AttentionShape{"8B", 32, 8, 128}, Bench::AttentionShape{"70B", 64, 8, 128},
        Bench::AttentionShape{"1B", 32, 8, 64}, Bench::AttentionShape{"SmolLM2-1.7B", 32, 32, 64},
        Bench::AttentionShape{"Falcon-7B", 71, 1, 64}}) {
    for (int sequences : {1, 16}) {
      for (bool spread : {false, true}) bench.Attention(shape, sequences, spread);
    }
  }
  for (int64_t count : {1, 40, 256}) bench.TopK(1, count);
  bench.TopK(16, 40);
  if (bench.WriteJson()) return 0;
  std::fprintf(stderr, "gpu_bench: cannot write %s\n", json_path);
  return 1;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "Usage: gpu_bench JSON_FILE\n");
    return 2;
  }
  return sluice::Run(argv[1]);
}
