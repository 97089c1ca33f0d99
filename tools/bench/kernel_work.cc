#include "tools/bench/kernel_work.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "formats/checked.h"
#include "kernels/select.h"
#include "offload/host_arena.h"

namespace sluice {
namespace {

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

// Divided by tokens; `bytes` are those of one.
Work OfTokens(int64_t tokens, double bytes) {
  Work work;
  work.bytes = bytes * static_cast<double>(tokens);
  work.items = tokens;
  work.grain = std::max<int64_t>(tokens / 16, 1);
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

}  // namespace

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

Prepare OnRows(int64_t tokens, int64_t width, double streams, const RowCall& call) {
  return [=](const OpTable& table) -> Work {
    const auto x = Numbers(tokens * width);
    const auto y = Numbers(tokens * width);
    const auto weight = Numbers(width);
    Work work = OfTokens(tokens, streams * 4 * static_cast<double>(width));
    work.run = [=, &table](int64_t begin, int64_t end) {
      call(table, x->data(), y->data(), weight->data(), begin, end);
    };
    return work;
  };
}

Prepare Quantize(int64_t tokens, int64_t width) {
  return [=](const OpTable& table) -> Work {
    const auto in = std::make_shared<Inputs>(tokens, width, 32);
    Work work = OfTokens(tokens, 5.25 * static_cast<double>(width));
    work.run = [=, &table](int64_t begin, int64_t end) {
      table.quantize({in->x->data(), width, width, in->quantized, begin, end}, nullptr);
    };
    return work;
  };
}

Prepare RoundBf16(int64_t tokens, int64_t width) {
  return [=](const OpTable& table) -> Work {
    if (Status s = CheckBf16(table); !s.ok()) return Failed(s);
    const auto in = std::make_shared<Inputs>(tokens, width, 32);
    in->rounded.resize(RoundUp(static_cast<uint64_t>(tokens), kBf16Tokens) *
                       static_cast<uint64_t>(width));
    in->bf16 = {in->rounded.data(), width};
    Work work = OfTokens(tokens, 6.0 * static_cast<double>(width));
    work.run = [=, &table](int64_t begin, int64_t end) {
      table.round_bf16({in->x->data(), width, width, tokens, in->bf16, begin, end}, nullptr);
    };
    return work;
  };
}

Prepare Rope(const Heads& heads, int64_t tokens) {
  return [=](const OpTable& table) -> Work {
    const int64_t width = heads.query * heads.dim;
    const auto x = Numbers(tokens * width);
    const auto frequencies = std::make_shared<std::vector<float>>(
        static_cast<size_t>(heads.dim / 2), 0.0F);  // turns by nothing: numbers stay what they are
    const auto positions = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(tokens), 7);
    Work work = OfTokens(tokens, 8.0 * static_cast<double>(width));
    work.run = [=, &table](int64_t begin, int64_t end) {
      table.rope({x->data(), width, positions->data(), frequencies->data(), 1, heads.query,
                  heads.dim, heads.dim, begin, end},
                 nullptr);
    };
    return work;
  };
}

Prepare StoreKv(const Heads& heads, int64_t tokens) {
  return [=](const OpTable& table) -> Work {
    const auto cache = std::make_shared<Cache>(heads, tokens);
    const int64_t width = heads.kv * heads.dim;
    const auto key = Numbers(tokens * width);
    const auto slots = std::make_shared<std::vector<int64_t>>();
    for (int64_t t = 0; t < tokens; ++t) slots->push_back(t);
    Work work = OfTokens(tokens, 2 * 6.0 * static_cast<double>(width));
    work.run = [=, &table](int64_t begin, int64_t end) {
      table.store_kv({key->data(), key->data(), width, cache->layer, slots->data(), begin, end},
                     nullptr);
    };
    return work;
  };
}

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

}  // namespace sluice
