// Contexts that are computed in splits: the same bits as in one go, and in every table that can.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "formats/half.h"
#include "kernels/select.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

struct Shape {
  int64_t heads, kv_heads, dim;
};

// Tokens of two sequences with long contexts in one cache, and what they read.
class SplitAttention {
 public:
  SplitAttention(const Shape& shape, KvType type, std::vector<int64_t> lengths, int64_t window,
                 std::mt19937& random)
      : lengths_(std::move(lengths)) {
    const int64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
    const int64_t blocks = (longest + kKvBlockTokens - 1) / kKvBlockTokens;
    const int64_t elements = shape.kv_heads * 2 * kKvBlockTokens * shape.dim;
    cache_.resize(static_cast<size_t>(2 * blocks * elements * KvTypeBytes(type)));
    const std::vector<float> values =
        test::RandomFloats(static_cast<size_t>(2 * blocks * elements), random);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t bits = FloatToF16(values[i]);
      if (type == KvType::kF32) std::memcpy(&cache_[4 * i], &values[i], 4);
      if (type == KvType::kF16) std::memcpy(&cache_[2 * i], &bits, 2);
    }
    for (std::vector<uint32_t>& table : tables_) {
      for (int64_t i = 0; i < 2 * blocks; ++i) table.push_back(static_cast<uint32_t>(i));
      std::shuffle(table.begin(), table.end(), random);
    }
    const auto tokens = static_cast<int64_t>(lengths_.size());
    for (int64_t t = 0; t < tokens; ++t) of_token_.push_back(tables_[t >= tokens / 2].data());
    query_ = test::RandomFloats(static_cast<size_t>(tokens * shape.heads * shape.dim), random);
    splits_ = (longest + kAttentionSplitKeys - 1) / kAttentionSplitKeys;
    args_.query = query_.data();
    args_.query_stride = args_.out_stride = shape.heads * shape.dim;
    args_.num_heads = shape.heads;
    args_.layer = {cache_.data(), elements * KvTypeBytes(type), type, shape.kv_heads, shape.dim};
    args_.block_tables = of_token_.data();
    args_.lengths = lengths_.data();
    args_.window = window;
    args_.scale = 0.3f;
    args_.tokens = tokens;
  }

  std::vector<float> Whole(const OpTable& table) {
    std::vector<float> out(query_.size(), -77.0f);
    args_.out = out.data();
    args_.partials = nullptr;
    Divide(table.attention, args_.tokens * args_.layer.num_kv_heads, 1 << 20);
    return out;
  }

  // By ranges of that many items.
  std::vector<float> InSplits(const OpTable& table, int64_t range) {
    std::vector<float> out(query_.size(), -77.0f);
    const int64_t floats = AttentionPartialFloats(args_.layer.head_dim);
    std::vector<float> partials(
        static_cast<size_t>(splits_ * args_.tokens * args_.num_heads * floats) + 16,
        std::numeric_limits<float>::quiet_NaN());
    args_.out = out.data();
    args_.partials = partials.data();
    while (reinterpret_cast<uintptr_t>(args_.partials) % 64 != 0) ++args_.partials;
    const int64_t items = args_.tokens * args_.layer.num_kv_heads;
    Divide(table.attention, splits_ * items, range);
    Divide(table.combine_attention, items, range);
    return out;
  }

 private:
  void Divide(void (*operation)(const AttentionArgs&, CUstream_st*), int64_t items, int64_t range) {
    for (args_.item_begin = 0; args_.item_begin < items; args_.item_begin = args_.item_end) {
      args_.item_end = std::min(items, args_.item_begin + range);
      operation(args_, nullptr);
    }
  }

  std::vector<int64_t> lengths_;
  std::vector<std::byte> cache_;
  std::vector<uint32_t> tables_[2];
  std::vector<const uint32_t*> of_token_;
  std::vector<float> query_;
  int64_t splits_ = 0;
  AttentionArgs args_{};
};

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class AttentionSplits : public testing::TestWithParam<KvType> {};

TEST_P(AttentionSplits, HaveTheBitsOfAContextInOneGo) {
  std::mt19937 random(31);
  const std::vector<int64_t> lengths = {1,    511,  512,  513,  1023, 1024, 1025, 1700,
                                        1701, 1702, 2000, 2048, 2049, 100,  16,   600};
  for (const Shape& shape : {Shape{8, 2, 64}, Shape{9, 3, 20}, Shape{5, 5, 33}, Shape{3, 1, 576}}) {
    for (int64_t window : {0, 1, 500, 512, 700}) {
      SplitAttention attention(shape, GetParam(), lengths, window, random);
      for (const OpTable* table : AvailableTables()) {
        if (table->combine_attention == nullptr) continue;
        const std::vector<float> whole = attention.Whole(*table);
        for (const float value : whole) ASSERT_TRUE(value > -77.0f);  // all written, no NaN
        for (int64_t range : {1, 7, 64, 1 << 20}) {
          ASSERT_TRUE(SameBits(attention.InSplits(*table, range), whole))
              << table->name << " dim " << shape.dim << " window " << window << " ranges of "
              << range;
        }
      }
    }
  }
}

TEST_P(AttentionSplits, TablesThatTakeThemAgreeToTheBit) {
  std::mt19937 random(32);
  const std::vector<int64_t> lengths = {1, 15, 16, 17, 100, 513, 514, 515, 1100};
  for (const Shape& shape :
       {Shape{8, 2, 64}, Shape{9, 3, 20}, Shape{5, 5, 33}, Shape{40, 1, 256}, Shape{2, 2, 1}}) {
    for (int64_t window : {0, 50}) {
      SplitAttention attention(shape, GetParam(), lengths, window, random);
      std::vector<float> first;
      for (const OpTable* table : AvailableTables()) {
        if (table->combine_attention == nullptr) continue;
        const std::vector<float> out = attention.Whole(*table);
        if (first.empty()) first = out;
        ASSERT_TRUE(SameBits(out, first)) << table->name << " dim " << shape.dim;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AttentionSplits, testing::Values(KvType::kF32, KvType::kF16),
                         [](const testing::TestParamInfo<KvType>& info) {
                           return info.param == KvType::kF32 ? "f32" : "f16";
                         });

}  // namespace
}  // namespace sluice
