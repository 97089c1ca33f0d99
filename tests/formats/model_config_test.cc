#include "formats/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "llama";
  config.name = "small";
  config.vocab_size = 100;
  config.hidden_size = 48;
  config.num_layers = 3;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.intermediate_size = 77;
  config.context_length = 128;
  config.rope.dim = 8;
  return config;
}

TEST(ModelConfig, SurvivesJson) {
  ModelConfig config = SmallConfig();
  config.attention_bias = true;
  config.tie_embeddings = true;
  config.norm_eps = 9.999999747378752e-06;
  config.rope.frequency_divisors = {1.0f, 1.1f, 3.1415927f, 8.0f};
  Result<ModelConfig> read = ModelConfig::FromJson(config.ToJson());
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read, config);

  config.rope.frequency_divisors.clear();
  for (const RopeType type : {RopeType::kNone, RopeType::kDefault, RopeType::kLinear,
                              RopeType::kLlama3, RopeType::kYarn}) {
    config.rope.type = type;
    config.rope.factor = 1.0 / 3.0;
    config.rope.original_context = 8192;
    config.rope.truncate = false;
    read = ModelConfig::FromJson(config.ToJson());
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_EQ(*read, config);
  }
}

TEST(ModelConfig, ANameThatIsNotUtf8StillMakesJson) {
  ModelConfig config = SmallConfig();
  config.name = "caf\xe9";
  Result<ModelConfig> read = ModelConfig::FromJson(config.ToJson());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->name, "caf\xef\xbf\xbd");
}

struct BadConfig {
  const char* name;
  std::function<void(ModelConfig&)> change;
  const char* field;
};

void PrintTo(const BadConfig& bad, std::ostream* out) { *out << bad.name; }

class ModelConfigBad : public ::testing::TestWithParam<BadConfig> {};

TEST_P(ModelConfigBad, IsRefusedByTheNameOfTheField) {
  ModelConfig config = SmallConfig();
  ASSERT_TRUE(config.Validate().ok());
  GetParam().change(config);
  const Status status = config.Validate();
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr(GetParam().field));
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

const BadConfig kBadConfigs[] = {
    {"NoArchitecture", [](ModelConfig& c) { c.architecture = ""; }, "architecture"},
    {"NoVocabulary", [](ModelConfig& c) { c.vocab_size = 0; }, "vocab_size is 0"},
    {"HugeVocabulary", [](ModelConfig& c) { c.vocab_size = int64_t{1} << 31; }, "vocab_size"},
    {"NegativeHidden", [](ModelConfig& c) { c.hidden_size = -48; }, "hidden_size is -48"},
    {"HugeHidden", [](ModelConfig& c) { c.hidden_size = (1 << 24) + 1; }, "hidden_size"},
    {"HugeLayers", [](ModelConfig& c) { c.num_layers = 4097; }, "num_layers"},
    {"NoKvHeads", [](ModelConfig& c) { c.num_kv_heads = 0; }, "num_kv_heads"},
    {"HeadsNotDivisible", [](ModelConfig& c) { c.num_kv_heads = 4; }, "num_kv_heads 4"},
    {"MoreKvHeadsThanHeads", [](ModelConfig& c) { c.num_kv_heads = 12; }, "num_kv_heads 12"},
    {"HugeProductOfHeads",
     [](ModelConfig& c) {
       c.num_heads = 1 << 20;
       c.head_dim = 1 << 20;
     },
     "num_heads 1048576 times head_dim"},
    {"NoFfn", [](ModelConfig& c) { c.intermediate_size = 0; }, "intermediate_size"},
    {"NoContext", [](ModelConfig& c) { c.context_length = INT64_MIN; }, "context_length"},
    {"NanEpsilon", [](ModelConfig& c) { c.norm_eps = kNan; }, "norm_eps"},
    {"NegativeEpsilon", [](ModelConfig& c) { c.norm_eps = -1e-5; }, "norm_eps"},
    {"OddRope", [](ModelConfig& c) { c.rope.dim = 7; }, "rope.dim"},
    {"RopeAboveHead", [](ModelConfig& c) { c.rope.dim = 10; }, "rope.dim"},
    {"NoRopeDim", [](ModelConfig& c) { c.rope.dim = 0; }, "rope.dim"},
    {"NanTheta", [](ModelConfig& c) { c.rope.theta = kNan; }, "rope.theta"},
    {"InfiniteTheta", [](ModelConfig& c) { c.rope.theta = kInfinity; }, "rope.theta"},
    {"ZeroTheta", [](ModelConfig& c) { c.rope.theta = 0; }, "rope.theta"},
    {"ZeroFactor", [](ModelConfig& c) { c.rope.factor = 0; }, "rope.factor"},
    {"NanFactor", [](ModelConfig& c) { c.rope.factor = kNan; }, "rope.factor"},
    {"YarnThetaOf1",
     [](ModelConfig& c) {
       c.rope.type = RopeType::kYarn;
       c.rope.original_context = 10;
       c.rope.theta = 1;
     },
     "rope.theta"},
    {"YarnWithoutContext", [](ModelConfig& c) { c.rope.type = RopeType::kYarn; },
     "rope.original_context"},
    {"Llama3FactorsAlike",
     [](ModelConfig& c) {
       c.rope.type = RopeType::kLlama3;
       c.rope.original_context = 10;
       c.rope.high_freq_factor = c.rope.low_freq_factor;
     },
     "rope.high_freq_factor"},
    {"DivisorsOfAnotherLength",
     [](ModelConfig& c) {
       c.rope.frequency_divisors = {1, 2, 3};
     },
     "rope.frequency_divisors"},
    {"DivisorOf0",
     [](ModelConfig& c) {
       c.rope.frequency_divisors = {1, 0, 3, 4};
     },
     "rope.frequency_divisors"},
    {"DivisorsOfAnotherType",
     [](ModelConfig& c) {
       c.rope.type = RopeType::kLinear;
       c.rope.frequency_divisors = {1, 2, 3, 4};
     },
     "rope.frequency_divisors"},
};

INSTANTIATE_TEST_SUITE_P(All, ModelConfigBad, ::testing::ValuesIn(kBadConfigs),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ModelConfig, JsonWithAMemberOfAnotherTypeIsRefusedByName) {
  const nlohmann::json good = nlohmann::json::parse(SmallConfig().ToJson());
  for (const auto& [name, value] : good.items()) {
    for (const nlohmann::json& wrong :
         {nlohmann::json(nullptr), nlohmann::json("64"), nlohmann::json(1.5), nlohmann::json(true),
          nlohmann::json::array({1}), nlohmann::json(UINT64_MAX), nlohmann::json::object()}) {
      // A float or a bool or a text of any value is right for some members.
      if (wrong.type() == value.type() || (value.is_number() && wrong.is_number_float())) continue;
      nlohmann::json bad = good;
      bad[name] = wrong;
      const Status status = ModelConfig::FromJson(bad.dump()).status();
      EXPECT_FALSE(status.ok()) << bad;
      const std::string part = name == "rope" ? "rope." : name;
      EXPECT_THAT(status.message(), HasSubstr(part)) << bad;
    }
    nlohmann::json missing = good;
    missing.erase(name);
    const Status status = ModelConfig::FromJson(missing.dump()).status();
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
    EXPECT_THAT(status.message(), HasSubstr(name));
  }
}

TEST(ModelConfig, JsonWithAnUnknownMemberIsUnsupported) {
  nlohmann::json json = nlohmann::json::parse(SmallConfig().ToJson());
  json["sliding_window"] = 4096;
  Status status = ModelConfig::FromJson(json.dump()).status();
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("'sliding_window'"));
  json.erase("sliding_window");
  json["rope"]["type"] = "proportional";
  status = ModelConfig::FromJson(json.dump()).status();
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("'proportional'"));
}

TEST(ModelConfig, TextThatIsNoConfigurationIsRefused) {
  for (const char* text : {"", "null", "[]", "{", "{}", "7", "{\"name\":\"a\",\"name\":\"b\"}"}) {
    EXPECT_EQ(ModelConfig::FromJson(text).status().code(), ErrorCode::kCorrupt) << text;
  }
}

TEST(ModelConfig, MembersOfLaterArchitecturesSurviveJsonAndAreLeftOutOfOthers) {
  ModelConfig config = SmallConfig();
  const std::string plain = config.ToJson();
  config.alibi_bias_max = 16;
  config.alibi_in_bf16 = true;
  config.post_norm = true;
  config.final_norm = false;
  config.embedding_size = 20;
  Result<ModelConfig> again = ModelConfig::FromJson(config.ToJson());
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(*again, config);
  for (const char* name :
       {"alibi_bias_max", "alibi_in_bf16", "post_norm", "final_norm", "embedding_size"}) {
    EXPECT_THAT(config.ToJson(), HasSubstr(name));
    EXPECT_EQ(plain.find(name), std::string::npos) << name;
  }
  config.parallel_blocks = true;
  EXPECT_THAT(config.Validate().message(), HasSubstr("post_norm"));
  config.parallel_blocks = false;
  config.embedding_size = -1;
  EXPECT_THAT(config.Validate().message(), HasSubstr("embedding_size is -1"));
  config.embedding_size = 0;
  for (const double bias : {-1.0, 101.0, std::nan("")}) {
    config.alibi_bias_max = bias;
    EXPECT_THAT(config.Validate().message(), HasSubstr("alibi_bias_max"));
  }
}

TEST(AlibiSlopes, OfAPowerOfTwoOfHeadsAreAGeometricSequence) {
  EXPECT_THAT(AlibiSlopes(8, 8),
              ElementsAre(0x1p-1f, 0x1p-2f, 0x1p-3f, 0x1p-4f, 0x1p-5f, 0x1p-6f, 0x1p-7f, 0x1p-8f));
  EXPECT_THAT(AlibiSlopes(1, 8), ElementsAre(0x1p-8f));
  EXPECT_THAT(AlibiSlopes(4, 16), ElementsAre(0x1p-4f, 0x1p-8f, 0x1p-12f, 0x1p-16f));
  const std::vector<float> slopes = AlibiSlopes(16, 8);
  ASSERT_EQ(slopes.size(), 16u);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_FLOAT_EQ(slopes[i], static_cast<float>(std::pow(0.5, static_cast<double>(i + 1) / 2)));
  }
}

TEST(AlibiSlopes, OfOtherNumbersGoOnWithEverySecondOneOfTwiceAsMany) {
  EXPECT_THAT(AlibiSlopes(3, 8), ElementsAre(0x1p-4f, 0x1p-8f, 0x1p-2f));
  EXPECT_THAT(AlibiSlopes(6, 8), ElementsAre(0x1p-2f, 0x1p-4f, 0x1p-6f, 0x1p-8f, 0x1p-1f, 0x1p-3f));
  const std::vector<float> slopes = AlibiSlopes(12, 8);
  ASSERT_EQ(slopes.size(), 12u);
  EXPECT_EQ(slopes[7], 0x1p-8f);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(slopes[8 + i], 0.70710678f * std::pow(0.5f, static_cast<float>(i)));
  }
}

TEST(RopeFrequencies, OfAPowerOf16AreExact) {
  RopeConfig rope;
  rope.theta = 65536;
  rope.dim = 8;
  EXPECT_THAT(RopeFrequencies(rope, 4096),
              ElementsAre(1.0f, 0.0625f, 0.00390625f, 0.000244140625f));
  rope.type = RopeType::kLinear;
  rope.factor = 2;
  EXPECT_THAT(RopeFrequencies(rope, 4096),
              ElementsAre(0.5f, 0.03125f, 0.001953125f, 0.0001220703125f));
}

TEST(RopeFrequencies, AreDividedByTheDivisors) {
  RopeConfig rope;
  rope.theta = 65536;
  rope.dim = 8;
  rope.frequency_divisors = {1.0f, 2.0f, 0.5f, 3.0f};
  EXPECT_THAT(RopeFrequencies(rope, 4096),
              ElementsAre(1.0f, 0.03125f, 0.0078125f, 0.000244140625f / 3.0f));
}

TEST(RopeFrequencies, OfNoRotationAreZero) {
  RopeConfig rope;
  rope.type = RopeType::kNone;
  rope.dim = 4;
  EXPECT_THAT(RopeFrequencies(rope, 4096), ElementsAre(0.0f, 0.0f));
}

}  // namespace
}  // namespace sluice
