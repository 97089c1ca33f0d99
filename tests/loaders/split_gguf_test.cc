// GGUF in shards: any of them opens all, and sets that are not whole are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf_set.h"
#include "loaders/checkpoint.h"
#include "tests/support/foreign_files.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr size_t kShards = 3;

// The tiny model with numbers in its weights, and divisors of frequencies.
GgufBytes WholeModel() {
  GgufBytes model = TinyLlamaGguf();
  std::string divisors;
  for (int i = 0; i < 8; ++i) divisors += LittleEndian(1.0f + static_cast<float>(i));
  model.AddTensor({"rope_freqs.weight", {8}, 0, divisors});
  float value = 1;
  for (GgufTensorBytes& tensor : model.tensors) {
    for (size_t at = 0; at < tensor.data.size() && tensor.name != "rope_freqs.weight"; at += 4) {
      std::memcpy(tensor.data.data() + at, &value, sizeof(value));
      value += 1;
    }
  }
  return model;
}

std::string ShardName(size_t number, size_t count = kShards) {
  std::string name = "m-0000" + std::to_string(number + 1) + "-of-0000" + std::to_string(count);
  return name + ".gguf";
}

// As llama.cpp's gguf-split writes it: all metadata in the first shard, tensors one after another.
std::array<GgufBytes, kShards> Split(const GgufBytes& model) {
  std::array<GgufBytes, kShards> shards;
  shards[0].entries = model.entries;
  shards[0].key_count = model.key_count;
  for (size_t number = 0; number < kShards; ++number) {
    shards[number]
        .Add("split.no", 2, LittleEndian(static_cast<uint16_t>(number)))
        .Add("split.count", 2, LittleEndian(static_cast<uint16_t>(kShards)))
        .Add("split.tensors.count", 5, LittleEndian(static_cast<int32_t>(model.tensors.size())));
  }
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    shards[i * kShards / model.tensors.size()].AddTensor(model.tensors[i]);
  }
  return shards;
}

class SplitGguf : public ::testing::Test {
 protected:
  void Write() {
    for (size_t i = 0; i < kShards; ++i) scratch_.Write(ShardName(i), shards_[i].Build());
  }
  // Every shard leads to the same refusal, in one line that names a file.
  void ExpectRefused(ErrorCode code, const std::string& part) {
    for (size_t i = 0; i < kShards; ++i) {
      if (!std::filesystem::exists(scratch_ / ShardName(i))) continue;
      const Status status = Checkpoint::Open(scratch_ / ShardName(i)).status();
      EXPECT_EQ(status.code(), code) << "opened shard " << i + 1 << ": " << status.message();
      EXPECT_THAT(status.message(), HasSubstr(part)) << "opened shard " << i + 1;
      EXPECT_THAT(status.message(), HasSubstr(".gguf"));
    }
  }

  ScratchDirectory scratch_;
  std::array<GgufBytes, kShards> shards_ = Split(WholeModel());
};

TEST_F(SplitGguf, AnyShardOpensTheWholeModel) {
  Result<Checkpoint> whole = Checkpoint::Open(scratch_.Write("whole.gguf", WholeModel().Build()));
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  Write();
  for (size_t i = 0; i < kShards; ++i) {
    Result<Checkpoint> set = Checkpoint::Open(scratch_ / ShardName(i));
    ASSERT_TRUE(set.ok()) << set.status().message();
    EXPECT_EQ(set->config(), whole->config());
    EXPECT_EQ(set->tokenizer_json(), whole->tokenizer_json());
    EXPECT_EQ(set->size_bytes(), whole->size_bytes());
    EXPECT_THAT(set->description(), HasSubstr("of 3 shards"));
    ASSERT_EQ(set->tensors().size(), whole->tensors().size());
    for (const SourceTensor& tensor : whole->tensors()) {
      const SourceTensor* same = set->Find(tensor.name);
      ASSERT_NE(same, nullptr) << tensor.name;
      std::vector<std::byte> want(SourceRowBytes(tensor.type, tensor.cols) * tensor.rows);
      std::vector<std::byte> got(want.size());
      ASSERT_TRUE(whole->ReadRows(tensor, 0, tensor.rows, want).ok());
      ASSERT_TRUE(set->ReadRows(*same, 0, tensor.rows, got).ok());
      EXPECT_EQ(got, want) << tensor.name;
    }
  }
}

// The sentence goes on with the option, loaders/convert.cc.
TEST_F(SplitGguf, HeadersThatTakeMoreMemoryThanAllowedAreRefused) {
  Write();
  const std::string whole = scratch_.Write("whole.gguf", WholeModel().Build());
  for (const std::string& path : {whole, scratch_ / ShardName(0), scratch_ / ShardName(2)}) {
    uint64_t enough = 1;
    Status status;
    for (; enough < 1 << 20; enough += enough / 8 + 1) {
      status = Checkpoint::Open(path, enough).status();
      if (status.ok()) break;
      EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit) << enough << ": " << status.message();
      EXPECT_THAT(status.message(), HasSubstr(".gguf"));
      EXPECT_TRUE(status.message().ends_with("are allowed")) << status.message();
    }
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_GT(enough, std::filesystem::file_size(path)) << path;
  }
}

TEST_F(SplitGguf, OneShardOfOneIsAnOrdinaryFile) {
  GgufBytes model = WholeModel();
  model.Add("split.no", 2, LittleEndian(uint16_t{0}))
      .Add("split.count", 2, LittleEndian(uint16_t{1}))
      .Add("split.tensors.count", 5, LittleEndian(int32_t{12}));
  Result<Checkpoint> checkpoint = Checkpoint::Open(scratch_.Write("any.gguf", model.Build()));
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
}

TEST_F(SplitGguf, AMissingShardIsNamed) {
  for (size_t missing = 0; missing < kShards; ++missing) {
    Write();
    std::filesystem::remove(scratch_ / ShardName(missing));
    ExpectRefused(ErrorCode::kNotFound, ShardName(missing));
  }
}

TEST_F(SplitGguf, AShardUnderAnotherNameLeadsToNoOthers) {
  const Status status = Checkpoint::Open(scratch_.Write("m.gguf", shards_[1].Build())).status();
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("shard 2 of 3"));
  EXPECT_THAT(status.message(), HasSubstr("-00002-of-00003.gguf"));
}

TEST_F(SplitGguf, ShardsThatChangedPlaces) {
  std::swap(shards_[1], shards_[2]);
  Write();
  // Those that were exchanged notice it by their own name.
  const Status first = Checkpoint::Open(scratch_ / ShardName(0)).status();
  EXPECT_EQ(first.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(first.message(), HasSubstr("says that it is shard 3 of 3"));
  EXPECT_FALSE(Checkpoint::Open(scratch_ / ShardName(1)).ok());
  EXPECT_FALSE(Checkpoint::Open(scratch_ / ShardName(2)).ok());
}

TEST_F(SplitGguf, AShardOfASetOfAnotherSize) {
  shards_[2].Remove("split.count").Add("split.count", 2, LittleEndian(uint16_t{4}));
  Write();
  const Status status = Checkpoint::Open(scratch_ / ShardName(0)).status();
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr("says that it is shard 3 of 4"));
}

TEST_F(SplitGguf, AFileThatIsNoShardAmongShards) {
  scratch_.Write(ShardName(0), shards_[0].Build());
  scratch_.Write(ShardName(1), WholeModel().Build());
  scratch_.Write(ShardName(2), shards_[2].Build());
  const Status status = Checkpoint::Open(scratch_ / ShardName(0)).status();
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr("says that it is shard 1 of 1"));
}

TEST_F(SplitGguf, ShardsOfTwoModels) {
  shards_[1].Remove("split.tensors.count").Add("split.tensors.count", 5, LittleEndian(int32_t{99}));
  Write();
  ExpectRefused(ErrorCode::kCorrupt, "99");
}

TEST_F(SplitGguf, ATensorThatTwoShardsHave) {
  shards_[2].AddTensor(shards_[0].tensors[0]);
  Write();
  ExpectRefused(ErrorCode::kCorrupt, "token_embd.weight");
}

TEST_F(SplitGguf, ATensorThatNoShardHas) {
  shards_[2].tensors.pop_back();
  Write();
  ExpectRefused(ErrorCode::kCorrupt, "have 11 tensors, not 12");
}

TEST_F(SplitGguf, ATruncatedShard) {
  Write();
  const std::string path = scratch_ / ShardName(2);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  ExpectRefused(ErrorCode::kTruncated, ShardName(2));
}

TEST_F(SplitGguf, KeysThatAreAbsurd) {
  struct Bad {
    const char* key;
    uint32_t type;
    std::string value;
    ErrorCode code;
  };
  const Bad cases[] = {{"split.count", 4, LittleEndian(uint32_t{65536}), ErrorCode::kCorrupt},
                       {"split.no", 2, LittleEndian(uint16_t{3}), ErrorCode::kCorrupt},
                       {"split.no", 8, GgufBytes::String("0"), ErrorCode::kCorrupt},
                       {"split.count", 2, LittleEndian(uint16_t{0}), ErrorCode::kCorrupt},
                       {"split.tensors.count", 5, LittleEndian(int32_t{-1}), ErrorCode::kCorrupt}};
  for (const Bad& bad : cases) {
    shards_ = Split(WholeModel());
    shards_[0].Remove(bad.key).Add(bad.key, bad.type, bad.value);
    Write();
    const Status status = Checkpoint::Open(scratch_ / ShardName(0)).status();
    EXPECT_EQ(status.code(), bad.code) << bad.key << ": " << status.message();
    EXPECT_THAT(status.message(), HasSubstr("split."));
  }
  shards_ = Split(WholeModel());
  shards_[0].Remove("split.tensors.count");
  Write();
  EXPECT_EQ(Checkpoint::Open(scratch_ / ShardName(0)).status().code(), ErrorCode::kNotFound);
}

TEST(GgufShardPaths, AreToldFromTheNameAlone) {
  using Paths = std::vector<std::string>;
  EXPECT_EQ(
      GgufShardPaths("d/m-00002-of-00003.gguf"),
      (Paths{"d/m-00001-of-00003.gguf", "d/m-00002-of-00003.gguf", "d/m-00003-of-00003.gguf"}));
  EXPECT_EQ(GgufShardPaths("-00001-of-00001.gguf"), Paths{"-00001-of-00001.gguf"});
  for (const char* other :
       {"", "m.gguf", "m-00000-of-00003.gguf", "m-00004-of-00003.gguf", "m-00001-of-00003.GGUF",
        "m-0001-of-00003.gguf", "m-00001-of-0000x.gguf", "m-00001-of-00003.gguf.1",
        "m-00001of--00003.gguf", "m_00001-of-00003.gguf", "0001-of-00003.gguf"}) {
    EXPECT_EQ(GgufShardPaths(other), Paths{other});
  }
}

}  // namespace
}  // namespace sluice
