// The paged cache against a naive model that copies whole contexts.
#include "runtime/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace sluice {
namespace {

constexpr LayerStateDescription kSmall = {.num_kv_heads = 1, .head_dim = 2};

uint64_t BytesPerToken(int64_t layers, int64_t kv_heads, int64_t head_dim, KvType type) {
  const std::vector<LayerStateDescription> all(
      static_cast<size_t>(layers),
      LayerStateDescription{.num_kv_heads = kv_heads, .head_dim = head_dim});
  return KvCache::BlockBytes(all, type) / kKvBlockTokens;
}

// 2 (K and V) x layers x KV heads x head size x bytes, as published for these models.
TEST(KvCache, BytesPerTokenOfKnownModels) {
  EXPECT_EQ(BytesPerToken(80, 8, 128, KvType::kF16), 327'680u);     // Llama-2-70B
  EXPECT_EQ(BytesPerToken(40, 40, 128, KvType::kF16), 819'200u);    // OPT-13B
  EXPECT_EQ(BytesPerToken(96, 96, 128, KvType::kF16), 4'718'592u);  // GPT-3
  EXPECT_EQ(BytesPerToken(30, 3, 64, KvType::kF32), 46'080u);       // SmolLM2-135M
}

TEST(KvCache, RefusesNoBlocksAndMoreThanCanBeCounted) {
  for (int64_t blocks : {int64_t{0}, int64_t{-1}, int64_t{1} << 31, INT64_MAX}) {
    const auto cache = KvCache::Create(std::vector{kSmall}, KvType::kF16, blocks);
    ASSERT_FALSE(cache.ok()) << blocks;
    EXPECT_EQ(cache.status().code(), ErrorCode::kOutOfMemory);
  }
}

// A cache of which each slot holds one number per layer, and sequences as plain lists of them.
class CacheModel {
 public:
  explicit CacheModel(int64_t num_blocks)
      : cache_(*KvCache::Create(std::vector{kSmall, kSmall}, KvType::kF32, num_blocks)) {}

  struct SequenceModel {
    BlockTable table;
    std::vector<float> tokens;
    size_t blocks_reserved() const { return table.blocks.size(); }
  };

  float* Slot(const BlockTable& table, int64_t position, int64_t layer) {
    const int64_t slot = KvCache::Slot(table, position);
    const KvLayer& view = cache_->layer(layer);
    return reinterpret_cast<float*>(view.blocks + slot / kKvBlockTokens * view.block_bytes) +
           slot % kKvBlockTokens * 2;
  }

  void Write(SequenceModel* sequence, int64_t position, float value) {
    for (int64_t layer : {0, 1})
      *Slot(sequence->table, position, layer) = value + static_cast<float>(layer);
    sequence->tokens.resize(static_cast<size_t>(position));
    sequence->tokens.push_back(value);
  }

  // Every sequence reads what it wrote; counts of blocks add up; no block is written by two.
  void ExpectConsistent(std::map<int, SequenceModel>& sequences) {
    std::set<uint32_t> used;
    for (auto& [id, sequence] : sequences) {
      ASSERT_LE(sequence.tokens.size(), sequence.table.blocks.size() * kKvBlockTokens);
      for (uint32_t block : sequence.table.blocks) {
        ASSERT_LT(block, cache_->num_blocks());
        used.insert(block);
      }
      for (size_t i = 0; i < sequence.tokens.size(); ++i) {
        for (int64_t layer : {0, 1}) {
          ASSERT_EQ(*Slot(sequence.table, static_cast<int64_t>(i), layer),
                    sequence.tokens[i] + static_cast<float>(layer))
              << "sequence " << id << " position " << i;
        }
      }
    }
    ASSERT_EQ(cache_->free_blocks(), cache_->num_blocks() - static_cast<int64_t>(used.size()));
  }

  KvCache& cache() { return *cache_; }

 private:
  std::unique_ptr<KvCache> cache_;
};

TEST(KvCache, RandomOperationsKeepEverySequenceAsIfItHadACacheOfItsOwn) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    CacheModel model(24);
    std::map<int, CacheModel::SequenceModel> sequences;
    int next_id = 0;
    int refused = 0;
    float next_value = 1;
    for (int step = 0; step < 600; ++step) {
      const auto pick = [&] {
        return std::next(sequences.begin(), static_cast<ptrdiff_t>(random() % sequences.size()));
      };
      const unsigned kind = random() % 10;
      if (sequences.empty() || kind == 0) {
        sequences[next_id++];
      } else if (kind <= 5) {  // writes some tokens from a place not behind the end
        auto& sequence = pick()->second;
        const auto size = static_cast<int64_t>(sequence.tokens.size());
        const int64_t first =
            size == 0 ? 0 : static_cast<int64_t>(random() % static_cast<size_t>(size + 1));
        const int64_t end = first + static_cast<int64_t>(random() % 40);
        const std::vector<uint32_t> before = sequence.table.blocks;
        const int64_t free_before = model.cache().free_blocks();
        if (model.cache().Reserve(&sequence.table, end, first).ok()) {
          for (int64_t position = first; position < end; ++position) {
            model.Write(&sequence, position, next_value);
            next_value += 2;
          }
        } else {
          ++refused;
          ASSERT_EQ(sequence.table.blocks, before);
          ASSERT_EQ(model.cache().free_blocks(), free_before);
        }
      } else if (kind <= 7) {  // a prefix for another
        const auto& source = pick()->second;
        const auto tokens = static_cast<int64_t>(random() % (source.tokens.size() + 1));
        CacheModel::SequenceModel copy;
        copy.table = model.cache().Share(source.table, tokens);
        copy.tokens.assign(source.tokens.begin(), source.tokens.begin() + tokens);
        sequences[next_id++] = std::move(copy);
      } else if (kind == 8) {
        auto& sequence = pick()->second;
        const auto tokens = static_cast<int64_t>(random() % (sequence.tokens.size() + 1));
        model.cache().Truncate(&sequence.table, tokens);
        sequence.tokens.resize(static_cast<size_t>(tokens));
      } else {
        const auto gone = pick();
        model.cache().Truncate(&gone->second.table, 0);
        sequences.erase(gone);
      }
      ASSERT_NO_FATAL_FAILURE(model.ExpectConsistent(sequences))
          << "seed " << seed << " step " << step;
    }
    EXPECT_GT(refused, 0) << "the pool never ran out, so that was not tried";
    for (auto& [id, sequence] : sequences) model.cache().Truncate(&sequence.table, 0);
    EXPECT_EQ(model.cache().free_blocks(), 24);
  }
}

TEST(KvCache, AReservationThatAllBlocksWouldNotSatisfyTakesNone) {
  CacheModel model(4);
  BlockTable table;
  EXPECT_EQ(model.cache().Reserve(&table, 65, 0).code(), ErrorCode::kOutOfMemory);
  EXPECT_TRUE(table.blocks.empty());
  EXPECT_TRUE(model.cache().Reserve(&table, 64, 0).ok());
  EXPECT_EQ(model.cache().free_blocks(), 0);
}

TEST(KvCache, ReadingASharedBlockCopiesNothing) {
  CacheModel model(4);
  BlockTable table;
  ASSERT_TRUE(model.cache().Reserve(&table, 32, 0).ok());
  BlockTable other = model.cache().Share(table, 32);
  ASSERT_TRUE(model.cache().Reserve(&other, 48, 32).ok());  // writes behind the shared part only
  EXPECT_EQ(other.blocks[0], table.blocks[0]);
  EXPECT_EQ(other.blocks[1], table.blocks[1]);
  EXPECT_EQ(model.cache().free_blocks(), 1);
}

TEST(KvCache, WritingInsideTheLastSharedBlockCopiesThatOneAlone) {
  CacheModel model(8);
  BlockTable table;
  ASSERT_TRUE(model.cache().Reserve(&table, 40, 0).ok());
  BlockTable other = model.cache().Share(table, 35);
  ASSERT_TRUE(model.cache().Reserve(&other, 36, 35).ok());
  EXPECT_EQ(other.blocks[1], table.blocks[1]);
  EXPECT_NE(other.blocks[2], table.blocks[2]);
  // The first owner is now alone and writes in place.
  const uint32_t own = table.blocks[2];
  ASSERT_TRUE(model.cache().Reserve(&table, 41, 40).ok());
  EXPECT_EQ(table.blocks[2], own);
}

}  // namespace
}  // namespace sluice
