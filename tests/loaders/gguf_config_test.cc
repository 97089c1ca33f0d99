// Metadata of GGUF files as configurations, through whole small files.
#include "loaders/gguf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>

#include "loaders/checkpoint_source.h"
#include "tests/support/foreign_files.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

Result<CheckpointSource> Open(const GgufBytes& file, std::string* bytes) {
  *bytes = file.Build();
  return OpenGguf(std::make_unique<MemoryBytes>(BytesOf(*bytes), "the file"));
}

ModelConfig ConfigOf(const GgufBytes& file) {
  std::string bytes;
  Result<CheckpointSource> source = Open(file, &bytes);
  EXPECT_TRUE(source.ok()) << source.status().message();
  return source.ok() ? source->config : ModelConfig();
}

TEST(GgufConfig, ReadsAModelWithDefaults) {
  const ModelConfig config = ConfigOf(TinyLlamaGguf());
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.vocab_size, 8);
  EXPECT_EQ(config.hidden_size, 32);
  EXPECT_EQ(config.num_layers, 1);
  EXPECT_EQ(config.num_heads, 2);
  EXPECT_EQ(config.num_kv_heads, 1);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.intermediate_size, 64);
  EXPECT_EQ(config.context_length, 64);
  EXPECT_EQ(config.norm_eps, double{1e-5f});
  EXPECT_TRUE(config.tie_embeddings);
  EXPECT_EQ(config.rope.type, RopeType::kDefault);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.rope.dim, 16);
}

TEST(GgufConfig, ScalingTypeNoneMeansThatRotationsAreNotScaled) {
  GgufBytes file = TinyLlamaGguf();
  file.AddString("llama.rope.scaling.type", "none").AddF32("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(ConfigOf(file).rope.type, RopeType::kDefault);
}

TEST(GgufConfig, ReadsLinearScalingInBothSpellings) {
  GgufBytes now = TinyLlamaGguf();
  now.AddString("llama.rope.scaling.type", "linear").AddF32("llama.rope.scaling.factor", 4.0f);
  GgufBytes then = TinyLlamaGguf();
  then.AddF32("llama.rope.scale_linear", 4.0f);
  for (const GgufBytes& file : {now, then}) {
    EXPECT_EQ(ConfigOf(file).rope.type, RopeType::kLinear);
    EXPECT_EQ(ConfigOf(file).rope.factor, 4.0);
  }
}

TEST(GgufConfig, ReadsYarn) {
  GgufBytes file = TinyLlamaGguf();
  file.AddString("llama.rope.scaling.type", "yarn").AddF32("llama.rope.scaling.factor", 8.0f);
  RopeConfig rope = ConfigOf(file).rope;
  EXPECT_EQ(rope.type, RopeType::kYarn);
  EXPECT_EQ(rope.original_context, 64);
  EXPECT_EQ(rope.beta_fast, 32);
  EXPECT_EQ(rope.beta_slow, 1);
  EXPECT_TRUE(rope.truncate);
  EXPECT_DOUBLE_EQ(rope.attention_factor, 0.1 * std::log(8.0) + 1);

  file.AddU32("llama.rope.scaling.original_context_length", 16)
      .AddF32("llama.rope.scaling.yarn_beta_fast", 16.0f)
      .AddF32("llama.rope.scaling.yarn_beta_slow", 2.0f)
      .AddF32("llama.rope.scaling.yarn_log_multiplier", 0.5f)
      .AddF32("llama.rope.scaling.attn_factor", 2.0f);
  rope = ConfigOf(file).rope;
  EXPECT_EQ(rope.original_context, 16);
  EXPECT_EQ(rope.beta_fast, 16);
  EXPECT_EQ(rope.beta_slow, 2);
  EXPECT_DOUBLE_EQ(rope.attention_factor,
                   2 * (0.1 * std::log(8.0) + 1) / (0.05 * std::log(8.0) + 1));

  file.AddF32("llama.rope.scaling.yarn_attn_factor", 1.5f);
  EXPECT_EQ(ConfigOf(file).rope.attention_factor, 3.0);
}

TEST(GgufConfig, TakesArraysWhoseLayersAgree) {
  GgufBytes file = TinyLlamaGguf();
  file.Remove("llama.feed_forward_length");
  file.Add("llama.feed_forward_length", 9,
           LittleEndian<uint32_t>(5) + LittleEndian<uint64_t>(2) + LittleEndian<int32_t>(64) +
               LittleEndian<int32_t>(64));
  EXPECT_EQ(ConfigOf(file).intermediate_size, 64);
}

struct BadModel {
  const char* name;
  std::function<void(GgufBytes&)> change;
  ErrorCode code;
  const char* message;
};

void PrintTo(const BadModel& bad, std::ostream* out) { *out << bad.name; }

class GgufBadModel : public ::testing::TestWithParam<BadModel> {};

TEST_P(GgufBadModel, IsRefusedWithItsReason) {
  GgufBytes file = TinyLlamaGguf();
  GetParam().change(file);
  std::string bytes;
  const Status status = Open(file, &bytes).status();
  EXPECT_EQ(status.code(), GetParam().code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
  EXPECT_THAT(status.message(), HasSubstr("the file"));
}

void Replace(GgufBytes& file, const char* key, uint32_t value) {
  file.Remove(key).AddU32(key, value);
}

void MakeVector(GgufBytes& file, const char* name, uint64_t length) {
  file.AddF32Tensor(name, {length});
}

const BadModel kBadModels[] = {
    {"OtherArchitecture",
     [](GgufBytes& f) {
       f.Remove("general.architecture").AddString("general.architecture", "rwkv7");
     },
     ErrorCode::kUnsupported, "'rwkv7'"},
    {"NoArchitecture", [](GgufBytes& f) { f.Remove("general.architecture"); }, ErrorCode::kNotFound,
     "'general.architecture'"},
    {"Split",
     [](GgufBytes& f) {
       f.AddU32("split.count", 3).AddU32("split.no", 0).AddU32("split.tensors.count", 12);
     },
     ErrorCode::kUnsupported, "-00001-of-00003.gguf"},
    {"MixtureOfExperts", [](GgufBytes& f) { f.AddU32("llama.expert_count", 8); },
     ErrorCode::kUnsupported, "mixture of experts"},
    {"KeyMissing", [](GgufBytes& f) { f.Remove("llama.embedding_length"); }, ErrorCode::kNotFound,
     "'llama.embedding_length'"},
    {"EpsilonMissing", [](GgufBytes& f) { f.Remove("llama.attention.layer_norm_rms_epsilon"); },
     ErrorCode::kNotFound, "layer_norm_rms_epsilon"},
    {"KeyOfAnotherType",
     [](GgufBytes& f) { f.Remove("llama.block_count").AddF32("llama.block_count", 1.0f); },
     ErrorCode::kCorrupt, "'llama.block_count'"},
    {"NoHeads", [](GgufBytes& f) { Replace(f, "llama.attention.head_count", 0); },
     ErrorCode::kCorrupt, "num_heads is 0"},
    {"HugeLayers", [](GgufBytes& f) { Replace(f, "llama.block_count", 4'000'000'000u); },
     ErrorCode::kCorrupt, "num_layers is 4000000000"},
    {"LayersDiffer",
     [](GgufBytes& f) {
       f.Remove("llama.attention.head_count_kv");
       f.Add("llama.attention.head_count_kv", 9,
             LittleEndian<uint32_t>(4) + LittleEndian<uint64_t>(2) + LittleEndian<uint32_t>(1) +
                 LittleEndian<uint32_t>(2));
     },
     ErrorCode::kUnsupported, "llama.attention.head_count_kv differs"},
    {"ValueLengthDiffers", [](GgufBytes& f) { f.AddU32("llama.attention.value_length", 8); },
     ErrorCode::kUnsupported, "value_length"},
    {"PartialRotation", [](GgufBytes& f) { f.AddU32("llama.rope.dimension_count", 8); },
     ErrorCode::kUnsupported, "llama.rope.dimension_count is 8"},
    {"LongRopeWithoutFactors",
     [](GgufBytes& f) { f.AddString("llama.rope.scaling.type", "longrope"); }, ErrorCode::kCorrupt,
     "'longrope'"},
    {"LongRopeWithOneSetOfFactors",
     [](GgufBytes& f) {
       f.AddU32("llama.rope.scaling.original_context_length", 64);
       MakeVector(f, "rope_factors_long.weight", 8);
     },
     ErrorCode::kCorrupt, "rope.short_divisors has 0 values"},
    {"YarnWithoutExtrapolation",
     [](GgufBytes& f) {
       f.AddString("llama.rope.scaling.type", "yarn")
           .AddF32("llama.rope.scaling.factor", 2.0f)
           .AddF32("llama.rope.scaling.yarn_ext_factor", 0.0f);
     },
     ErrorCode::kUnsupported, "yarn_ext_factor"},
    {"NanTheta", [](GgufBytes& f) { f.AddF32("llama.rope.freq_base", NAN); }, ErrorCode::kCorrupt,
     "rope.theta"},
    {"WindowsOfOtherLayers",
     [](GgufBytes& f) {
       f.AddU32("llama.attention.sliding_window", 4096);
       f.AddU32("llama.attention.sliding_window_pattern", UINT32_MAX).Remove("llama.block_count");
       f.AddU32("llama.block_count", 4097);
     },
     ErrorCode::kCorrupt, "num_layers"},
    {"VocabularyDiffers", [](GgufBytes& f) { f.AddU32("llama.vocab_size", 9); },
     ErrorCode::kCorrupt, "llama.vocab_size is 9"},
    {"FactorsOfAnotherLength", [](GgufBytes& f) { MakeVector(f, "rope_freqs.weight", 7); },
     ErrorCode::kCorrupt, "'rope_freqs.weight' has 7"},
    {"FactorsOf0", [](GgufBytes& f) { MakeVector(f, "rope_freqs.weight", 8); }, ErrorCode::kCorrupt,
     "rope.frequency_divisors"},
    {"FactorsAndScaling",
     [](GgufBytes& f) {
       MakeVector(f, "rope_freqs.weight", 8);
       f.AddF32("llama.rope.scaling.factor", 2.0f);
     },
     ErrorCode::kUnsupported, "'rope_freqs.weight' together"},
    {"UnsupportedType",
     [](GgufBytes& f) {
       GgufTensorBytes& tensor = f.Tensor("blk.0.attn_q.weight");
       tensor.type = 20;  // IQ4_NL
       tensor.data.resize(32 * 18);
     },
     ErrorCode::kUnsupported, "'blk.0.attn_q.weight': type IQ4_NL"},
    {"TensorMissing", [](GgufBytes& f) { f.RemoveTensor("blk.0.ffn_up.weight"); },
     ErrorCode::kCorrupt, "'blk.0.ffn_up.weight' is missing"},
    {"EmbeddingMissing", [](GgufBytes& f) { f.RemoveTensor("token_embd.weight"); },
     ErrorCode::kCorrupt, "'token_embd.weight'"},
    {"FusedTensor",
     [](GgufBytes& f) {
       f.AddF32Tensor("blk.0.attn_qkv.weight", {32, 64});
     },
     ErrorCode::kUnsupported, "'blk.0.attn_qkv.weight'"},
    {"LayerTooMany", [](GgufBytes& f) { MakeVector(f, "blk.1.attn_norm.weight", 32); },
     ErrorCode::kUnsupported, "'blk.1.attn_norm.weight'"},
    {"BiasOfOneProjectionOnly", [](GgufBytes& f) { MakeVector(f, "blk.0.attn_q.bias", 32); },
     ErrorCode::kCorrupt, "'blk.0.attn_k.bias' is missing"},
    {"Transposed",
     [](GgufBytes& f) {
       f.Tensor("blk.0.attn_k.weight").dims = {16, 32};
     },
     ErrorCode::kCorrupt,
     "'blk.0.attn_k.weight': shape [32, 16], the configuration wants [16, 32]"},
    {"VectorAsMatrix",
     [](GgufBytes& f) {
       f.Tensor("output_norm.weight").dims = {1, 32};
     },
     ErrorCode::kCorrupt, "'output_norm.weight': shape [32, 1]"},
    {"NoTokenizer", [](GgufBytes& f) { f.Remove("tokenizer.ggml.tokens"); }, ErrorCode::kNotFound,
     "'tokenizer.ggml.tokens'"},
    {"MoreTokensThanRows",
     [](GgufBytes& f) {
       f.Remove("tokenizer.ggml.tokens");
       f.AddStrings("tokenizer.ggml.tokens", {"a", "b", "c", "d", "ab", "cd", "abcd", "!", "?"});
     },
     ErrorCode::kCorrupt, "9 tokens"},
    {"ChatTemplateIsANumber", [](GgufBytes& f) { f.AddU32("tokenizer.chat_template", 1); },
     ErrorCode::kCorrupt, "'tokenizer.chat_template'"},
};

INSTANTIATE_TEST_SUITE_P(All, GgufBadModel, ::testing::ValuesIn(kBadModels),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace sluice
