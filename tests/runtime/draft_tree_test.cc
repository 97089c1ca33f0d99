// A draft tree as tokens of a batch, and a path of it that stays in the cache.
#include "runtime/draft_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "tests/support/fake_device.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

BlockTable TableOf(std::vector<uint32_t> blocks) {
  BlockTable table;
  table.blocks = std::move(blocks);
  return table;
}

TEST(DraftTree, NodesShareAPositionNotASlot) {
  const BlockTable table = TableOf({7, 2});
  // 10 - 11 - 13, 10 - 12 - 14
  const DraftTree tree = {{10, 11, 12, 13, 14}, {-1, 0, 0, 1, 2}};
  Batch batch;
  ASSERT_TRUE(AppendTree(tree, table, 14, &batch).ok());
  EXPECT_THAT(batch.ids, ElementsAre(10, 11, 12, 13, 14));
  EXPECT_THAT(batch.positions, ElementsAre(14, 15, 15, 16, 16));
  EXPECT_THAT(batch.slots, ElementsAre(7 * 16 + 14, 7 * 16 + 15, 2 * 16, 2 * 16 + 1, 2 * 16 + 2));
  EXPECT_THAT(batch.lengths, ElementsAre(15, 16, 17, 18, 19));
  EXPECT_THAT(batch.wanted, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(batch.tree_begins, ElementsAre(14, 14, 14, 14, 14));
  EXPECT_THAT(batch.ancestors, ElementsAre(0b1, 0b11, 0b101, 0b1011, 0b10101));
  for (const uint32_t* blocks : batch.block_tables) EXPECT_EQ(blocks, table.blocks.data());
  EXPECT_THAT(PathTo(tree, 4), ElementsAre(0, 2, 4));
  EXPECT_THAT(PathTo(tree, 0), ElementsAre(0));
}

TEST(DraftTree, AChainIsPlainTokens) {
  const BlockTable table = TableOf({0});
  Batch batch;
  ASSERT_TRUE(AppendTree({{10, 11, 12}, {-1, 0, 1}}, table, 5, &batch).ok());
  FillTrees(&batch);
  EXPECT_FALSE(batch.has_trees());
  EXPECT_THAT(batch.positions, ElementsAre(5, 6, 7));
  EXPECT_THAT(batch.lengths, ElementsAre(6, 7, 8));
}

TEST(DraftTree, TokensBeforeAndAfterItHaveNone) {
  const BlockTable plain = TableOf({0});
  const BlockTable table = TableOf({1});
  Batch batch;
  ASSERT_TRUE(AppendTree({{5}, {-1}}, plain, 3, &batch).ok());
  ASSERT_TRUE(AppendTree({{6, 7}, {-1, -1}}, table, 2, &batch).ok());
  ASSERT_TRUE(AppendTree({{8, 9}, {-1, 0}}, plain, 10, &batch).ok());
  FillTrees(&batch);
  EXPECT_THAT(batch.tree_begins, ElementsAre(4, 2, 2, 11, 12));
  EXPECT_THAT(batch.ancestors, ElementsAre(0, 0b1, 0b10, 0, 0));
  EXPECT_THAT(batch.positions, ElementsAre(3, 2, 2, 10, 11));
  EXPECT_THAT(batch.wanted, ElementsAre(0, 1, 2, 3, 4));
}

TEST(DraftTree, SixtyFourNodesAreTheMost) {
  const BlockTable table = TableOf({0, 1, 2, 3, 4});
  DraftTree tree;
  tree.ids.assign(64, 1);
  tree.parents.assign(64, -1);
  Batch batch;
  ASSERT_TRUE(AppendTree(tree, table, 0, &batch).ok());
  EXPECT_EQ(batch.ancestors.back(), uint64_t{1} << 63);
  tree.ids.push_back(1);
  tree.parents.push_back(-1);
  EXPECT_EQ(AppendTree(tree, table, 0, &batch).code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(batch.tokens(), 64);
}

TEST(DraftTree, WhatIsNoTreeIsRefusedAndLeavesTheBatch) {
  const BlockTable table = TableOf({0});
  Batch batch;
  for (const DraftTree& tree :
       {DraftTree{{1, 2}, {-1, 1}}, DraftTree{{1, 2}, {0, 0}}, DraftTree{{1, 2}, {-1, -2}},
        DraftTree{{1, 2}, {-1}}, DraftTree{{1, 2}, {1, -1}}}) {
    EXPECT_EQ(AppendTree(tree, table, 0, &batch).code(), ErrorCode::kInvalidArgument);
  }
  for (int64_t begin : {int64_t{-1}, int64_t{15}, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(AppendTree({{1, 2}, {-1, -1}}, table, begin, &batch).code(),
              ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(batch.tokens(), 0);
  EXPECT_THAT(batch.ancestors, IsEmpty());
}

// A cache on the host or on a device, of which every element is another number.
class NumberedCache {
 public:
  NumberedCache(KvType type, bool on_device) {
    const std::vector<LayerStateDescription> layers = {{.num_kv_heads = 2, .head_dim = 6},
                                                       {.num_kv_heads = 1, .head_dim = 10}};
    if (on_device) {
      device_ = std::make_unique<test::FakeDevice>();
      stream_ = std::move(*device_->CreateStream());
    }
    cache_ = *KvCache::Create(layers, type, kBlocks, device_.get(), on_device ? &stream_ : nullptr);
    const std::vector<std::byte> bytes = Numbers();
    Visit([&] { std::memcpy(cache_->layer(0).blocks, bytes.data(), bytes.size()); });
  }

  KvCache& cache() { return *cache_; }

  std::vector<std::byte> Numbers() const {
    std::vector<std::byte> bytes(cache_->size_bytes());
    for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
      const auto number = static_cast<uint16_t>(i / 2);
      std::memcpy(&bytes[i], &number, 2);
    }
    return bytes;
  }

  // What is in the cache when all copies are done.
  std::vector<std::byte> Bytes() {
    std::vector<std::byte> bytes(cache_->size_bytes());
    Visit([&] { std::memcpy(bytes.data(), cache_->layer(0).blocks, bytes.size()); });
    return bytes;
  }

  // K and V of a slot, in `all`.
  std::vector<std::byte*> Rows(std::vector<std::byte>& all, int64_t slot, size_t layer_index,
                               int64_t* row_bytes) const {
    const KvLayer& layer = cache_->layer(static_cast<int64_t>(layer_index));
    *row_bytes = layer.head_dim * KvTypeBytes(layer.type);
    std::vector<std::byte*> rows;
    for (int64_t head = 0; head < layer.num_kv_heads; ++head) {
      for (int64_t part : {0, 1}) {
        const int64_t at = (layer.blocks - cache_->layer(0).blocks) +
                           slot / 16 * layer.block_bytes +
                           ((head * 2 + part) * 16 + slot % 16) * *row_bytes;
        rows.push_back(all.data() + at);
      }
    }
    return rows;
  }

  // What keeping the path should do.
  void Expect(std::vector<std::byte>& all, const BlockTable& table, int64_t begin,
              const std::vector<int64_t>& nodes) const {
    std::vector<std::byte> source = all;
    for (size_t i = 0; i < nodes.size(); ++i) {
      for (size_t layer : {0, 1}) {
        int64_t row_bytes = 0;
        const auto from = Rows(source, KvCache::Slot(table, begin + nodes[i]), layer, &row_bytes);
        const auto to =
            Rows(all, KvCache::Slot(table, begin + static_cast<int64_t>(i)), layer, &row_bytes);
        for (size_t row = 0; row < from.size(); ++row) {
          std::memcpy(to[row], from[row], static_cast<size_t>(row_bytes));
        }
      }
    }
  }

  static constexpr int64_t kBlocks = 12;

 private:
  template <typename Work>
  void Visit(const Work& work) {
    if (device_ == nullptr) return work();
    ASSERT_TRUE(stream_.Synchronize().ok());
    const test::FakeDevice::Access access(device_.get());
    work();
  }

  std::unique_ptr<test::FakeDevice> device_;
  DeviceStream stream_;
  std::unique_ptr<KvCache> cache_;
};

struct Place {
  KvType type;
  bool on_device;
};

class KeptPaths : public ::testing::TestWithParam<Place> {};

TEST_P(KeptPaths, AreInConsecutiveSlotsAndNothingElseChanges) {
  std::mt19937 random(5);
  std::vector<int64_t> all(64);
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::vector<int64_t>> paths = {{}, {0}, {63}, {1}, all, {0, 1, 2, 5}};
  paths.emplace_back(all.begin() + 1, all.end());   // runs that move by less than their length
  paths.emplace_back(all.begin() + 16, all.end());  // and by whole blocks
  paths.emplace_back(all.begin() + 37, all.end());
  for (int i = 0; i < 30; ++i) {
    std::vector<int64_t> path;
    for (int64_t node : all) {
      if (random() % 3 == 0) path.push_back(node);
    }
    paths.push_back(path);
  }
  for (const std::vector<int64_t>& path : paths) {
    for (int64_t begin : {0, 13, 16, 31}) {
      NumberedCache numbered(GetParam().type, GetParam().on_device);
      BlockTable table;
      BlockTable other;
      ASSERT_TRUE(numbered.cache().Reserve(&table, 20, 0).ok());
      ASSERT_TRUE(numbered.cache().Reserve(&other, 20, 0).ok());
      ASSERT_TRUE(numbered.cache().Reserve(&table, begin + 64, 0).ok());  // not in their order
      std::vector<std::byte> expected = numbered.Numbers();
      numbered.Expect(expected, table, begin, path);
      const Status status = numbered.cache().KeepPath(&table, begin, path);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_TRUE(numbered.Bytes() == expected) << path.size() << " nodes at " << begin;
    }
  }
}

TEST_P(KeptPaths, OfASharedBlockLeaveTheOtherSequenceItsOwn) {
  NumberedCache numbered(GetParam().type, GetParam().on_device);
  BlockTable table;
  ASSERT_TRUE(numbered.cache().Reserve(&table, 40, 0).ok());
  const BlockTable other = numbered.cache().Share(table, 40);
  ASSERT_TRUE(numbered.cache().KeepPath(&table, 20, std::vector<int64_t>{1, 4}).ok());
  EXPECT_EQ(table.blocks[0], other.blocks[0]);
  EXPECT_NE(table.blocks[1], other.blocks[1]);
  std::vector<std::byte> numbers = numbered.Numbers();
  std::vector<std::byte> bytes = numbered.Bytes();
  for (int64_t position = 0; position < 40; ++position) {
    const int64_t kept = position == 20 ? 21 : position == 21 ? 24 : position;
    for (size_t layer : {0, 1}) {
      int64_t row_bytes = 0;
      const auto size = [&] { return static_cast<size_t>(row_bytes); };
      const auto was = numbered.Rows(numbers, KvCache::Slot(other, position), layer, &row_bytes);
      const auto is = numbered.Rows(bytes, KvCache::Slot(other, position), layer, &row_bytes);
      const auto from = numbered.Rows(numbers, KvCache::Slot(other, kept), layer, &row_bytes);
      const auto to = numbered.Rows(bytes, KvCache::Slot(table, position), layer, &row_bytes);
      for (size_t row = 0; row < was.size(); ++row) {
        ASSERT_EQ(std::memcmp(was[row], is[row], size()), 0) << position;
        ASSERT_EQ(std::memcmp(from[row], to[row], size()), 0) << position;
      }
    }
  }
}

TEST_P(KeptPaths, OfNoPathAreRefused) {
  NumberedCache numbered(GetParam().type, GetParam().on_device);
  BlockTable table;
  ASSERT_TRUE(numbered.cache().Reserve(&table, 32, 0).ok());
  for (const std::vector<int64_t>& path :
       {std::vector<int64_t>{1, 1}, {2, 1}, {-1}, {22}, {0, INT64_MAX}}) {
    EXPECT_EQ(numbered.cache().KeepPath(&table, 10, path).code(), ErrorCode::kInvalidArgument);
  }
  for (int64_t begin : {int64_t{-1}, int64_t{32}, INT64_MAX}) {
    EXPECT_EQ(numbered.cache().KeepPath(&table, begin, std::vector<int64_t>{0}).code(),
              ErrorCode::kInvalidArgument);
  }
  EXPECT_TRUE(numbered.Bytes() == numbered.Numbers());
}

INSTANTIATE_TEST_SUITE_P(Caches, KeptPaths,
                         ::testing::Values(Place{KvType::kF32, false}, Place{KvType::kF16, false},
                                           Place{KvType::kF16, true}),
                         [](const auto& info) {
                           return std::string(info.param.type == KvType::kF32 ? "f32" : "f16") +
                                  (info.param.on_device ? "_device" : "_host");
                         });

TEST(KeptPaths, OnADeviceThatIsLostAreAnError) {
  for (int64_t call = 0; call < 40; ++call) {
    test::FakeDevice device({.lost_at_call = call});
    Result<DeviceStream> stream = device.CreateStream();
    if (!stream.ok()) continue;
    const std::vector<LayerStateDescription> layers = {{.num_kv_heads = 2, .head_dim = 4}};
    Result<std::unique_ptr<KvCache>> cache =
        KvCache::Create(layers, KvType::kF16, 3, &device, &*stream);
    if (!cache.ok()) continue;
    BlockTable table;
    ASSERT_TRUE((*cache)->Reserve(&table, 40, 0).ok());
    const Status status = (*cache)->KeepPath(&table, 3, std::vector<int64_t>{1, 5, 20});
    static_cast<void>(stream->Synchronize());  // what is queued uses the cache
    // A stream, the cache, and one copy of each of three nodes.
    EXPECT_EQ(status.code(), call < 2 + 3 ? ErrorCode::kIo : ErrorCode::kOk) << call;
  }
}

}  // namespace
}  // namespace sluice
