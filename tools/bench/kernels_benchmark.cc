// Every operation of every CPU table at shapes of large models, by Google Benchmark: bytes and
// operations a second, and their shares of what memory and the table's arithmetic give to the same
// threads right before and right after (a machine that is shared changes within seconds).
//
// Usage: kernels_benchmark [--threads=N] [Google Benchmark's options]
//   --benchmark_filter='^attention/.*/avx512$'   names are operation/shape/table
//   --benchmark_repetitions=5 --benchmark_report_aggregates_only=true --benchmark_out=FILE.json
// Threads divide an operation as the engine does; default: one.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/checked.h"
#include "kernels/peak.h"
#include "kernels/select.h"
#include "offload/host_arena.h"
#include "runtime/parallel.h"

namespace sluice {
namespace {

enum class Peak { kInteger, kFloat, kBf16 };

// An operation that is ready to run, with its buffers.
struct Work {
  double bytes = 0;       // that it must read and write at least
  double operations = 0;  // 0: none worth counting
  Peak peak = Peak::kFloat;
  int64_t items = 0;
  int64_t grain = 1;
  std::function<void(int64_t begin, int64_t end)> run;
  std::function<void()> finish = [] {};  // after all ranges
  Status status = Status();

  void RunOn(ThreadTeam* team) const {
    team->For(items, grain, run);
    finish();
  }
};

using Prepare = std::function<Work(const OpTable&)>;

constexpr int64_t kWidth = 8192;  // of a model of 70 billion weights
constexpr int64_t kFfn = 28672;

double SecondsOf(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// What memory and arithmetic give now.
class Limits {
 public:
  explicit Limits(ThreadTeam* team) : team_(team) {
    Result<HostArena> memory =
        HostArena::Allocate(kBytesPerThread * static_cast<uint64_t>(team->threads()));
    if (!memory.ok()) return;
    memory_ = std::make_unique<HostArena>(std::move(*memory));
    std::memset(memory_->bytes().data(), 1, memory_->bytes().size());
  }

  // Medians of three.
  double BytesPerSecond() const {
    if (memory_ == nullptr) return 0;
    return MedianOfThree([&] { return ReadOnce(); });
  }
  double OperationsPerSecond(const OpTable& table, Peak peak) const {
    return MedianOfThree([&] { return ComputeOnce(table, peak); });
  }

 private:
  template <typename Measure>
  static double MedianOfThree(const Measure& measure) {
    double values[] = {measure(), measure(), measure()};
    std::sort(std::begin(values), std::end(values));
    return values[1];
  }

  double ReadOnce() const {
    const PeakLoops loops = PeakLoopsOf(*AvailableTables().back());
    const auto bytes = memory_->bytes();
    std::atomic<uint64_t> sink = 0;
    const double seconds = SecondsOf([&] {
      team_->For(static_cast<int64_t>(bytes.size() / kPart), 1, [&](int64_t begin, int64_t) {
        sink += loops.read(bytes.data() + static_cast<uint64_t>(begin) * kPart, kPart);
      });
    });
    return static_cast<double>(bytes.size()) / seconds;
  }

  double ComputeOnce(const OpTable& table, Peak peak) const {
    const PeakLoops loops = PeakLoopsOf(table);
    const auto loop = peak == Peak::kInteger ? loops.arithmetic
                      : peak == Peak::kBf16  ? loops.arithmetic_bf16
                                             : loops.arithmetic_f32;
    std::atomic<int64_t> operations = 0;
    const double seconds = SecondsOf([&] {
      team_->For(16 * team_->threads(), 1, [&](int64_t, int64_t) { operations += loop(kRounds); });
    });
    return static_cast<double>(operations) / seconds;
  }

  static constexpr uint64_t kBytesPerThread = uint64_t{128} << 20;
  static constexpr uint64_t kPart = uint64_t{1} << 20;
  static constexpr int64_t kRounds = 20000;

  ThreadTeam* team_;
  std::unique_ptr<HostArena> memory_;
};

void Run(benchmark::State& state, const OpTable& table, const Prepare& prepare,
         const Limits& limits, ThreadTeam* team) {
  const Work work = prepare(table);
  if (!work.status.ok()) {
    state.SkipWithError(work.status.message().c_str());
    return;
  }
  const bool arithmetic = work.operations > 0;
  work.RunOn(team);  // pages and caches are there
  double memory = limits.BytesPerSecond();
  double peak = arithmetic ? limits.OperationsPerSecond(table, work.peak) : 0;
  const auto begin = std::chrono::steady_clock::now();
  for (auto _ : state) work.RunOn(team);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  memory = (memory + limits.BytesPerSecond()) / 2;
  if (arithmetic) peak = (peak + limits.OperationsPerSecond(table, work.peak)) / 2;
  const auto times = static_cast<double>(state.iterations());
  state.counters["GB/s"] = work.bytes * times / seconds / 1e9;
  if (memory > 0) state.counters["of_memory"] = work.bytes * times / seconds / memory;
  if (!arithmetic) return;
  state.counters["GOP/s"] = work.operations * times / seconds / 1e9;
  state.counters["of_arithmetic"] = work.operations * times / seconds / peak;
}

std::shared_ptr<std::vector<float>> Numbers(int64_t count) {
  auto numbers = std::make_shared<std::vector<float>>(static_cast<size_t>(count));
  for (size_t i = 0; i < numbers->size(); ++i) (*numbers)[i] = static_cast<float>(i % 17) / 8 - 1;
  return numbers;
}

Work Failed(const Status& status) {
  Work work;
  work.status = status;
  return work;
}

// Activations in the form that a table wants for a type.
struct Inputs {
  std::shared_ptr<std::vector<float>> x;
  std::vector<int8_t> values;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  QuantizedActivations quantized = {};
  std::vector<uint16_t> rounded;
  Bf16Activations bf16 = {};

  Inputs(int64_t tokens, int64_t cols, int64_t group)
      : x(Numbers(tokens * cols)),
        values(static_cast<size_t>(tokens * cols)),
        scales(static_cast<size_t>(tokens * cols / group)),
        sums(scales.size()),
        quantized{values.data(), scales.data(), sums.data(), group, cols / group, cols} {}
};

// `rows` rows; ref, which takes seconds for what others do in milliseconds, gets a part of them.
Prepare Matmul(const WeightType& type, int64_t rows, int64_t cols, int64_t tokens, bool bf16) {
  return [=](const OpTable& table) -> Work {
    if (bf16) {
      if (Status s = CheckBf16(table); !s.ok()) return Failed(s);
    }
    const bool slow = &table == &kRefTable;
    const auto layout = std::make_shared<TileLayout>(
        *MakeTileLayout(type, static_cast<uint64_t>(slow ? rows / 32 : rows),
                        static_cast<uint64_t>(cols), kTileRows));
    Result<HostArena> allocated = HostArena::Allocate(layout->size_bytes);
    if (!allocated.ok()) return Failed(allocated.status());
    const auto weights = std::make_shared<HostArena>(std::move(*allocated));
    std::memset(weights->bytes().data(), 0x2c, weights->bytes().size());
    const auto in = std::make_shared<Inputs>(tokens, cols, ActivationGroup(type));
    if (bf16) {
      in->rounded.resize(RoundUp(static_cast<uint64_t>(tokens), kBf16Tokens) *
                         static_cast<uint64_t>(cols));
      in->bf16 = {in->rounded.data(), cols};
      table.round_bf16({in->x->data(), cols, cols, tokens, in->bf16, 0, tokens}, nullptr);
    } else if (table.activations(type) == ActivationForm::kQuantized) {
      table.quantize({in->x->data(), cols, cols, in->quantized, 0, tokens}, nullptr);
    }
    const auto y = Numbers(tokens * static_cast<int64_t>(layout->rows));
    Work work;
    work.bytes = static_cast<double>(layout->size_bytes);
    work.operations =
        2.0 * static_cast<double>(layout->rows * layout->cols) * static_cast<double>(tokens);
    work.peak = bf16                                                    ? Peak::kBf16
                : table.activations(type) == ActivationForm::kQuantized ? Peak::kInteger
                                                                        : Peak::kFloat;
    work.items = static_cast<int64_t>(layout->num_tiles);
    work.grain = std::max<int64_t>(work.items / 16, 1);
    work.run = [=, &table](int64_t begin, int64_t end) {
      const auto multiply = bf16 ? table.matmul_bf16 : table.matmul;
      multiply(
          {.layout = layout.get(),
           .tiles = weights->bytes().data() + static_cast<uint64_t>(begin) * layout->tile_bytes,
           .num_tiles = end - begin,
           .rows = (end - begin) * kTileRows,
           .x = in->x->data(),
           .x_stride = cols,
           .xq = &in->quantized,
           .tokens = tokens,
           .bias = nullptr,
           .add_to_y = false,
           .y = y->data() + begin * kTileRows,
           .y_stride = static_cast<int64_t>(layout->rows),
           .block_begin = 0,
           .block_end = static_cast<int64_t>(layout->num_blocks()),
           .x_bf16 = &in->bf16},
          nullptr);
    };
    return work;
  };
}

Prepare GatherRows(const WeightType& type, int64_t rows, int64_t cols, int64_t count) {
  return [=](const OpTable& table) -> Work {
    const auto layout = std::make_shared<TileLayout>(*MakeTileLayout(
        type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), /*tile_rows=*/1));
    Result<HostArena> allocated = HostArena::Allocate(layout->size_bytes);
    if (!allocated.ok()) return Failed(allocated.status());
    const auto matrix = std::make_shared<HostArena>(std::move(*allocated));
    std::memset(matrix->bytes().data(), 0x2c, matrix->bytes().size());
    const auto tiles = std::make_shared<std::vector<const std::byte*>>();
    for (int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<uint64_t>(i * 7919 % rows);
      tiles->push_back(matrix->bytes().data() + row * layout->tile_bytes);
    }
    const auto in_tile = std::make_shared<std::vector<uint32_t>>(tiles->size(), 0);
    const auto out = Numbers(count * cols);
    Work work;
    work.bytes = static_cast<double>(count) * static_cast<double>(layout->tile_bytes + 4 * cols);
    work.items = count;
    work.grain = std::max<int64_t>(count / 16, 1);
    // `matrix` is held by the function, which the rows point into.
    work.run = [=, &table](int64_t begin, int64_t end) {
      (void)matrix;
      table.gather_rows({layout.get(), tiles->data() + begin, in_tile->data() + begin, end - begin,
                         out->data() + begin * cols, cols},
                        nullptr);
    };
    return work;
  };
}

// An operation on rows of activations: `streams` numbers are read or written for each element.
template <typename Call>
Prepare OnRows(int64_t tokens, int64_t width, double streams, Call call) {
  return [=](const OpTable& table) -> Work {
    const auto x = Numbers(tokens * width);
    const auto y = Numbers(tokens * width);
    const auto weight = Numbers(width);
    Work work;
    work.bytes = streams * 4 * static_cast<double>(tokens * width);
    work.items = tokens;
    work.grain = std::max<int64_t>(tokens / 16, 1);
    work.run = [=, &table](int64_t begin, int64_t end) {
      call(table, x->data(), y->data(), weight->data(), begin, end);
    };
    return work;
  };
}

struct Heads {
  int64_t query, kv, dim;
};

Prepare Rope(const Heads& heads, int64_t tokens) {
  return [=](const OpTable& table) -> Work {
    const int64_t width = heads.query * heads.dim;
    const auto x = Numbers(tokens * width);
    const auto frequencies = std::make_shared<std::vector<float>>(
        static_cast<size_t>(heads.dim / 2), 0.0F);  // turns by nothing: numbers stay what they are
    const auto positions = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(tokens), 7);
    Work work;
    work.bytes = 8.0 * static_cast<double>(tokens * width);
    work.items = tokens;
    work.grain = std::max<int64_t>(tokens / 16, 1);
    work.run = [=, &table](int64_t begin, int64_t end) {
      table.rope({x->data(), width, positions->data(), frequencies->data(), 1, heads.query,
                  heads.dim, heads.dim, begin, end},
                 nullptr);
    };
    return work;
  };
}

// A paged cache whose blocks lie in a scattered order.
struct Cache {
  std::vector<std::byte> blocks;
  std::vector<uint32_t> table;
  KvLayer layer = {};

  Cache(const Heads& heads, int64_t context) {
    const int64_t block_bytes = heads.kv * 2 * kKvBlockTokens * heads.dim * 2;
    const int64_t count = (context + kKvBlockTokens - 1) / kKvBlockTokens;
    blocks.resize(static_cast<size_t>(count * block_bytes));
    for (size_t i = 0; i < blocks.size(); i += 2) blocks[i + 1] = std::byte{0x2c};  // f16: 1/16
    for (int64_t i = 0; i < count; ++i) table.push_back(static_cast<uint32_t>(i * 7 % count));
    if (count % 7 == 0) {
      for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<uint32_t>(i);
    }
    layer = {blocks.data(), block_bytes, KvType::kF16, heads.kv, heads.dim};
  }
};

Prepare StoreKv(const Heads& heads, int64_t tokens) {
  return [=](const OpTable& table) -> Work {
    const auto cache = std::make_shared<Cache>(heads, tokens);
    const int64_t width = heads.kv * heads.dim;
    const auto key = Numbers(tokens * width);
    const auto slots = std::make_shared<std::vector<int64_t>>();
    for (int64_t t = 0; t < tokens; ++t) slots->push_back(t);
    Work work;
    work.bytes = 2 * 6.0 * static_cast<double>(tokens * width);
    work.items = tokens;
    work.grain = std::max<int64_t>(tokens / 16, 1);
    work.run = [=, &table](int64_t begin, int64_t end) {
      table.store_kv({key->data(), key->data(), width, cache->layer, slots->data(), begin, end},
                     nullptr);
    };
    return work;
  };
}

// The last `tokens` tokens of a context; `tree`: they are nodes of a draft tree, each the child of
// the one at half its number; `window`: keys that each sees, 0 for all.
struct Attend {
  Heads heads;
  int64_t tokens;
  int64_t context;
  int64_t window = 0;
  bool tree = false;
  bool split = false;  // the context is divided, and put together again
};

Prepare Attention(const Attend& c) {
  return [=](const OpTable& table) -> Work {
    if (c.split && table.combine_attention == nullptr) {
      return Failed(Status(ErrorCode::kUnsupported, "this table does not divide contexts"));
    }
    const auto cache = std::make_shared<Cache>(c.heads, c.context);
    const int64_t width = c.heads.query * c.heads.dim;
    const auto query = Numbers(c.tokens * width);
    const auto out = Numbers(c.tokens * width);
    const auto lengths = std::make_shared<std::vector<int64_t>>();
    const auto begins = std::make_shared<std::vector<int64_t>>();
    const auto masks = std::make_shared<std::vector<uint64_t>>();
    const auto tables = std::make_shared<std::vector<const uint32_t*>>();
    double keys = 0;
    for (int64_t t = 0; t < c.tokens; ++t) {
      lengths->push_back(c.context - c.tokens + t + 1);
      tables->push_back(cache->table.data());
      begins->push_back(c.context - c.tokens);
      const uint64_t parent = t == 0 ? 0 : (*masks)[static_cast<size_t>((t - 1) / 2)];
      masks->push_back(parent | uint64_t{1} << t % 64);
      const int64_t seen = c.tree ? c.context - c.tokens : lengths->back();
      keys += static_cast<double>(c.window > 0 ? std::min(c.window, seen) : seen);
    }
    AttentionArgs args = {.query = query->data(),
                          .query_stride = width,
                          .num_heads = c.heads.query,
                          .layer = cache->layer,
                          .block_tables = tables->data(),
                          .lengths = lengths->data(),
                          .window = c.window,
                          .scale = 0.1F,
                          .softcap = 0,
                          .out = out->data(),
                          .out_stride = width,
                          .item_begin = 0,
                          .item_end = 0};
    args.tokens = c.tokens;
    if (c.tree) {
      args.tree_begin = begins->data();
      args.ancestors = masks->data();
    }
    const int64_t splits = (c.context + kAttentionSplitKeys - 1) / kAttentionSplitKeys;
    std::shared_ptr<HostArena> partials;
    if (c.split) {
      const int64_t floats =
          splits * c.tokens * c.heads.query * AttentionPartialFloats(c.heads.dim);
      Result<HostArena> allocated = HostArena::Allocate(static_cast<uint64_t>(floats) * 4);
      if (!allocated.ok()) return Failed(allocated.status());
      partials = std::make_shared<HostArena>(std::move(*allocated));
      args.partials = reinterpret_cast<float*>(partials->bytes().data());
    }
    const double read =
        static_cast<double>(c.window > 0 ? std::min(c.window + c.tokens, c.context) : c.context);
    Work work;
    work.bytes = 4 * read * static_cast<double>(c.heads.kv * c.heads.dim);
    work.operations = 4 * keys * static_cast<double>(c.heads.query * c.heads.dim);
    work.items = c.tokens * c.heads.kv * (c.split ? splits : 1);
    work.grain = std::max<int64_t>(work.items / 16, 1);
    // What `args` points to is held by the function.
    work.run = [=, &table](int64_t begin, int64_t end) {
      (void)cache, (void)query, (void)out, (void)lengths, (void)begins, (void)masks, (void)tables;
      (void)partials;
      AttentionArgs part = args;
      part.item_begin = begin;
      part.item_end = end;
      table.attention(part, nullptr);
    };
    if (c.split) {
      args.item_end = c.tokens * c.heads.kv;
      work.finish = [args, &table] { table.combine_attention(args, nullptr); };
    }
    return work;
  };
}

struct Entry {
  std::string name;
  Prepare prepare;
  bool slow_for_ref = false;
};

void AddMatmuls(std::vector<Entry>* entries) {
  const WeightType types[] = {{WeightKind::kInt4, WeightOffset::kZeroPoint, 128},
                              {WeightKind::kInt4, WeightOffset::kNone, 64},
                              {WeightKind::kInt4, WeightOffset::kNone, 32},
                              {WeightKind::kInt4, WeightOffset::kMinimum, 32},
                              {WeightKind::kInt8, WeightOffset::kNone, 32},
                              {WeightKind::kInt8, WeightOffset::kNone, 0},
                              {WeightKind::kInt5, WeightOffset::kNone, 32},
                              {WeightKind::kQ4K, WeightOffset::kMinimum, 32},
                              {WeightKind::kQ5K, WeightOffset::kMinimum, 32},
                              {WeightKind::kQ6K, WeightOffset::kNone, 16},
                              {WeightKind::kF16, WeightOffset::kNone, 0},
                              {WeightKind::kBF16, WeightOffset::kNone, 0},
                              {WeightKind::kF32, WeightOffset::kNone, 0}};
  for (const WeightType& type : types) {
    // 120 MiB and more for one token; arithmetic alone decides over 512.
    for (const int64_t tokens : {1, 2, 4, 8, 16, 32, 512}) {
      const int64_t rows = tokens == 512 ? 2048 : kFfn;
      const std::string shape =
          fmt::format("{}x{} {} x{}", rows, kWidth, WeightTypeName(type), tokens);
      entries->push_back(
          {"matmul/" + shape, Matmul(type, rows, kWidth, tokens, false), tokens > 16});
      if (tokens == 512) {
        entries->push_back(
            {"matmul_bf16/" + shape, Matmul(type, rows, kWidth, tokens, true), true});
      }
    }
  }
}

void AddAttention(std::vector<Entry>* entries) {
  constexpr Heads kGqa = {64, 8, 128};
  constexpr Heads kMha = {32, 32, 128};
  constexpr Heads kMqa = {32, 1, 128};
  constexpr Heads kSmall = {9, 3, 64};
  const auto add = [&](const std::string& what, const Attend& c) {
    entries->push_back({fmt::format("attention/{} {}:{}x{} x{} behind {}", what, c.heads.query,
                                    c.heads.kv, c.heads.dim, c.tokens, c.context - c.tokens),
                        Attention(c), c.tokens * c.context > 100000});
  };
  for (const int64_t context : {512, 4096, 16384}) add("GQA", {kGqa, 1, context});
  for (const int64_t context : {4096, 16384}) {
    add("GQA split", {kGqa, 1, context, 0, false, /*split=*/true});
  }
  add("MHA", {kMha, 1, 4096});
  add("MQA", {kMqa, 1, 4096});
  add("GQA", {kSmall, 1, 4096});
  add("GQA", {kGqa, 8, 4096});
  add("GQA", {kGqa, 128, 512});
  add("GQA", {kGqa, 128, 4096});
  add("GQA window 1024", {kGqa, 1, 16384, 1024});
  add("GQA tree", {kGqa, 32, 4096, 0, /*tree=*/true});
}

void AddRows(std::vector<Entry>* entries) {
  for (const int64_t tokens : {1, 512}) {
    const auto add = [&](const std::string& name, int64_t width, double streams, auto call) {
      entries->push_back(
          {fmt::format("{}{} x{}", name, width, tokens), OnRows(tokens, width, streams, call)});
    };
    entries->push_back(
        {fmt::format("quantize/int8 groups of 32 {} x{}", kWidth, tokens),
         [tokens](const OpTable& table) {
           const auto in = std::make_shared<Inputs>(tokens, kWidth, 32);
           Work work;
           work.bytes = 5.25 * static_cast<double>(tokens * kWidth);
           work.items = tokens;
           work.grain = std::max<int64_t>(tokens / 16, 1);
           work.run = [in, &table](int64_t begin, int64_t end) {
             table.quantize({in->x->data(), kWidth, kWidth, in->quantized, begin, end}, nullptr);
           };
           return work;
         }});
    add("rms_norm/", kWidth, 2,
        [](const OpTable& table, float* x, float* y, float* w, int64_t begin, int64_t end) {
          table.rms_norm({x, kWidth, w, kWidth, 1e-5F, false, y, kWidth, begin, end}, nullptr);
        });
    add("layer_norm/", kWidth, 2,
        [](const OpTable& table, float* x, float* y, float* w, int64_t begin, int64_t end) {
          table.layer_norm({x, kWidth, w, w, kWidth, 1e-5F, y, kWidth, begin, end}, nullptr);
        });
    add("scale_add/", kWidth, 3,
        [](const OpTable& table, float* x, float* y, float*, int64_t begin, int64_t end) {
          table.scale_add({y, kWidth, 0.5F, x, kWidth, kWidth, begin, end}, nullptr);
        });
    for (const auto& [activation, name] :
         {std::pair{Activation::kSilu, "silu"}, std::pair{Activation::kGeluTanh, "gelu_tanh"}}) {
      add(fmt::format("activate/{} ", name), kFfn, 3,
          [activation = activation](const OpTable& table, float* x, float* y, float*, int64_t begin,
                                    int64_t end) {
            table.activate({activation, x, x, kFfn, kFfn, y, kFfn, begin, end}, nullptr);
          });
    }
    add("softcap/", kFfn, 2,
        [](const OpTable& table, float* x, float*, float*, int64_t begin, int64_t end) {
          table.softcap({x, 30, begin * kFfn, end * kFfn}, nullptr);
        });
    entries->push_back(
        {fmt::format("rope/64 heads of 128 x{}", tokens), Rope({64, 64, 128}, tokens)});
    entries->push_back(
        {fmt::format("store_kv/8 heads of 128 x{}", tokens), StoreKv({64, 8, 128}, tokens)});
    entries->push_back(
        {fmt::format("gather_rows/int4:g32 {} x{}", kWidth, tokens),
         GatherRows({WeightKind::kInt4, WeightOffset::kNone, 32}, 16384, kWidth, tokens)});
    entries->push_back(
        {fmt::format("round_bf16/{} x{}", kWidth, tokens), [tokens](const OpTable& table) -> Work {
           if (Status s = CheckBf16(table); !s.ok()) return Failed(s);
           const auto in = std::make_shared<Inputs>(tokens, kWidth, 32);
           in->rounded.resize(RoundUp(static_cast<uint64_t>(tokens), kBf16Tokens) * kWidth);
           in->bf16 = {in->rounded.data(), kWidth};
           Work work;
           work.bytes = 6.0 * static_cast<double>(tokens * kWidth);
           work.items = tokens;
           work.grain = std::max<int64_t>(tokens / 16, 1);
           work.run = [in, tokens, &table](int64_t begin, int64_t end) {
             table.round_bf16({in->x->data(), kWidth, kWidth, tokens, in->bf16, begin, end},
                              nullptr);
           };
           return work;
         }});
  }
}

int Main(int argc, char** argv) {
  int threads = 1;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    constexpr std::string_view kOption = "--threads=";
    if (std::string_view(argv[i]).starts_with(kOption)) {
      threads = std::atoi(argv[i] + kOption.size());
    } else {
      rest.push_back(argv[i]);
    }
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (threads < 1 || benchmark::ReportUnrecognizedArguments(count, rest.data())) {
    fmt::print(stderr, "kernels_benchmark [--threads=N] [options of Google Benchmark]\n");
    return 2;
  }
  ThreadTeam team(threads);
  const Limits limits(&team);
  std::vector<Entry> entries;
  AddMatmuls(&entries);
  AddAttention(&entries);
  AddRows(&entries);
  for (const Entry& entry : entries) {
    for (const OpTable* table : AvailableTables()) {
      if (table == &kRefTable && entry.slow_for_ref) continue;
      benchmark::RegisterBenchmark((entry.name + "/" + table->name).c_str(),
                                   [&entry, table, &limits, &team](benchmark::State& state) {
                                     Run(state, *table, entry.prepare, limits, &team);
                                   })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::Main(argc, argv); }
