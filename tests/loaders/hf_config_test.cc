#include "loaders/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/mapped_file.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

Json BaseConfig() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300,
    "hidden_size": 64, "intermediate_size": 100, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 512})");
}

Result<ModelConfig> Read(const Json& config) { return ModelConfigFromHuggingFace(config.dump()); }

// Steps between two floats of the same sign.
int64_t UlpsBetween(float a, float b) {
  return std::abs(int64_t{std::bit_cast<int32_t>(a)} - std::bit_cast<int32_t>(b));
}

TEST(HfConfig, RotationFrequenciesAreThoseOfTransformers) {
  Result<std::string> text =
      ReadWholeFile(SLUICE_TEST_DATA_DIR "/golden/rope.json", uint64_t{1} << 20);
  ASSERT_TRUE(text.ok()) << text.status().message();
  const Json goldens = Json::parse(*text);
  EXPECT_EQ(goldens.size(), 17u);
  for (const Json& golden : goldens) {
    Result<ModelConfig> config = Read(golden["config"]);
    ASSERT_TRUE(config.ok()) << golden["name"] << config.status().message();
    EXPECT_DOUBLE_EQ(config->rope.attention_factor, golden["attention_factor"].get<double>())
        << golden["name"];
    const std::vector<float> frequencies = RopeFrequencies(config->rope, 4096);
    const auto want = golden["frequency_bits"].get<std::vector<int32_t>>();
    ASSERT_EQ(frequencies.size(), want.size()) << golden["name"];
    for (size_t i = 0; i < want.size(); ++i) {
      // torch's vectorized pow is good to one unit in the last place, not correctly rounded.
      EXPECT_LE(UlpsBetween(frequencies[i], std::bit_cast<float>(want[i])), 1)
          << golden["name"] << " pair " << i << ": " << frequencies[i];
    }
  }
}

TEST(HfConfig, TakesTheDefaultsOfTransformers) {
  Result<ModelConfig> config = Read(BaseConfig());
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->num_kv_heads, 4);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->norm_eps, 1e-6);
  EXPECT_EQ(config->rope.type, RopeType::kDefault);
  EXPECT_EQ(config->rope.theta, 10000.0);
  EXPECT_EQ(config->rope.dim, 16);
  EXPECT_FALSE(config->tie_embeddings);
  EXPECT_FALSE(config->attention_bias);
  EXPECT_FALSE(config->mlp_bias);
}

TEST(HfConfig, NullMeansAbsent) {
  Json json = BaseConfig();
  for (const char* name : {"head_dim", "num_key_value_heads", "rope_scaling", "rope_parameters",
                           "quantization_config", "attention_bias", "rope_theta"}) {
    json[name] = nullptr;
  }
  json["pretraining_tp"] = 4;
  Result<ModelConfig> config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(*config, *Read(BaseConfig()));
}

TEST(HfConfig, AttentionBiasIsOnAllFourProjections) {
  Json json = BaseConfig();
  json["attention_bias"] = true;
  json["tie_word_embeddings"] = true;
  json["head_dim"] = 24;
  json["num_key_value_heads"] = 2;
  Result<ModelConfig> config = Read(json);
  ASSERT_TRUE(config.ok());
  EXPECT_TRUE(config->attention_bias);
  EXPECT_TRUE(config->attention_output_bias);
  EXPECT_FALSE(config->mlp_bias);
  EXPECT_TRUE(config->tie_embeddings);
  EXPECT_EQ(config->head_dim, 24);
  EXPECT_EQ(config->rope.dim, 24);
  EXPECT_EQ(config->num_kv_heads, 2);
}

TEST(HfConfig, BothSpellingsOfAConfigurationAreTheSame) {
  const std::string golden = SLUICE_TEST_DATA_DIR "/golden/";
  for (const char* name : {"mha", "gqa", "mqa", "bias_linear", "head_dim", "llama3", "llama3_old",
                           "yarn", "yarn_given", "sharded"}) {
    Result<std::string> one = ReadWholeFile(golden + name + "/config.json", 100'000);
    Result<std::string> other = ReadWholeFile(golden + name + "/config_other_style.json", 100'000);
    ASSERT_TRUE(one.ok() && other.ok()) << name;
    Result<ModelConfig> a = ModelConfigFromHuggingFace(*one);
    Result<ModelConfig> b = ModelConfigFromHuggingFace(*other);
    ASSERT_TRUE(a.ok() && b.ok()) << name << a.status().message() << b.status().message();
    EXPECT_EQ(*a, *b) << name;
  }
}

struct BadConfig {
  const char* name;
  const char* patch;  // merged into the base
  ErrorCode code;
  const char* message;
};

void PrintTo(const BadConfig& bad, std::ostream* out) { *out << bad.name; }

class HfConfigBad : public ::testing::TestWithParam<BadConfig> {};

TEST_P(HfConfigBad, IsRefusedWithItsReason) {
  Json json = BaseConfig();
  json.update(Json::parse(GetParam().patch));
  const Status status = Read(json).status();
  EXPECT_EQ(status.code(), GetParam().code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
}

const BadConfig kBadConfigs[] = {
    {"OtherArchitecture", R"({"architectures":["MixtralForCausalLM"],"model_type":"mixtral"})",
     ErrorCode::kUnsupported, "'MixtralForCausalLM'"},
    {"OtherArchitectureNamesTheKnownOnes", R"({"architectures":["FooModel"]})",
     ErrorCode::kUnsupported, "supported: LlamaForCausalLM"},
    {"OtherArchitectureOfAKnownFamily",
     R"({"architectures":["Phi3SmallForCausalLM"],"model_type":"phi3small"})",
     ErrorCode::kUnsupported, "'Phi3SmallForCausalLM'"},
    {"OtherArchitectureWithCodeOfItsOwn",
     R"({"architectures":["InternLM2ForCausalLM"],"model_type":"internlm2"})",
     ErrorCode::kUnsupported, "'InternLM2ForCausalLM'"},
    {"RopeOfImages", R"({"rope_scaling":{"type":"mrope","mrope_section":[16,24,24]}})",
     ErrorCode::kUnsupported, "'mrope'"},
    {"OtherModelType", R"({"model_type":"mistral"})", ErrorCode::kUnsupported, "'mistral'"},
    {"OtherHead", R"({"architectures":["LlamaForSequenceClassification"]})",
     ErrorCode::kUnsupported, "'LlamaForSequenceClassification'"},
    {"NoArchitecture", R"({"architectures":null,"model_type":null})", ErrorCode::kCorrupt,
     "architectures"},
    {"ArchitecturesIsText", R"({"architectures":"LlamaForCausalLM"})", ErrorCode::kCorrupt,
     "architectures"},
    {"Quantized", R"({"quantization_config":{"quant_method":"gptq","bits":4}})",
     ErrorCode::kUnsupported, "'gptq'"},
    {"QuantizedSomehow", R"({"quantization_config":[1]})", ErrorCode::kUnsupported,
     "quantization_config"},
    {"OtherActivation", R"({"hidden_act":"mish"})", ErrorCode::kUnsupported, "'mish'"},
    {"UnknownRope", R"({"rope_scaling":{"type":"proportional","factor":2.0}})",
     ErrorCode::kUnsupported, "'proportional'"},
    {"DynamicWithoutFactor", R"({"rope_scaling":{"type":"dynamic"}})", ErrorCode::kCorrupt,
     "rope_scaling.factor is missing"},
    {"DynamicFactorBelow1", R"({"rope_scaling":{"type":"dynamic","factor":0.5}})",
     ErrorCode::kCorrupt, "rope.factor"},
    {"LongRopeWithoutDivisors", R"({"rope_parameters":{"rope_type":"longrope","factor":2.0}})",
     ErrorCode::kCorrupt, "rope_parameters.short_factor is missing"},
    {"LongRopeDivisorsOfOtherLength",
     R"({"rope_parameters":{"rope_type":"longrope","short_factor":[1],"long_factor":[1]}})",
     ErrorCode::kCorrupt, "rope.short_divisors has 1 values"},
    {"LongRopeDivisorOfZero",
     R"({"rope_parameters":{"rope_type":"longrope","short_factor":[1,1,1,1,1,1,1,0],
        "long_factor":[1,1,1,1,1,1,1,1]}})",
     ErrorCode::kCorrupt, "rope.short_divisors"},
    {"RopeByLayerType", R"({"rope_parameters":{"full_attention":{"rope_type":"default"}}})",
     ErrorCode::kUnsupported, "full_attention"},
    {"PartialRotary", R"({"partial_rotary_factor":0.5})", ErrorCode::kUnsupported,
     "partial_rotary_factor"},
    {"RopeIsText", R"({"rope_scaling":"yarn"})", ErrorCode::kCorrupt, "rope_scaling"},
    {"LinearWithoutFactor", R"({"rope_scaling":{"type":"linear"}})", ErrorCode::kCorrupt,
     "rope_scaling.factor is missing"},
    {"Llama3WithoutLowFactor",
     R"({"rope_parameters":{"rope_type":"llama3","factor":8,"high_freq_factor":4}})",
     ErrorCode::kCorrupt, "rope_parameters.low_freq_factor is missing"},
    {"FactorIsText", R"({"rope_scaling":{"type":"yarn","factor":"4"}})", ErrorCode::kCorrupt,
     "rope_scaling.factor is not a number"},
    {"ContextOf0",
     R"({"rope_scaling":{"type":"yarn","factor":null,"original_max_position_embeddings":0}})",
     ErrorCode::kCorrupt, "rope.factor"},
    {"HiddenMissing", R"({"hidden_size":null})", ErrorCode::kCorrupt, "hidden_size is missing"},
    {"HiddenIsText", R"({"hidden_size":"64"})", ErrorCode::kCorrupt, "hidden_size"},
    {"HiddenIsAFraction", R"({"hidden_size":64.5})", ErrorCode::kCorrupt, "hidden_size"},
    {"HiddenAbove2To63", R"({"hidden_size":18446744073709551615})", ErrorCode::kCorrupt,
     "hidden_size"},
    {"NegativeLayers", R"({"num_hidden_layers":-2})", ErrorCode::kCorrupt, "num_layers is -2"},
    {"NoHeads", R"({"num_attention_heads":0})", ErrorCode::kCorrupt, "num_heads is 0"},
    {"HugeVocabulary", R"({"vocab_size":4294967296})", ErrorCode::kCorrupt, "vocab_size"},
    {"KvHeadsNotDividing", R"({"num_key_value_heads":3})", ErrorCode::kCorrupt, "num_kv_heads 3"},
    {"OddHead", R"({"head_dim":15})", ErrorCode::kCorrupt, "rope.dim"},
    {"TieIsANumber", R"({"tie_word_embeddings":1})", ErrorCode::kCorrupt, "tie_word_embeddings"},
    {"EpsilonAbove1", R"({"rms_norm_eps":2})", ErrorCode::kCorrupt, "norm_eps"},
    {"NegativeTheta", R"({"rope_theta":-10000.0})", ErrorCode::kCorrupt, "rope.theta"},
};

INSTANTIATE_TEST_SUITE_P(All, HfConfigBad, ::testing::ValuesIn(kBadConfigs),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(HfConfig, HeadsOfQwen3Have128ValuesWhereTheFileDoesNotSay) {
  Json json = BaseConfig();
  json["architectures"] = {"Qwen3ForCausalLM"};
  json["model_type"] = "qwen3";
  json["num_key_value_heads"] = 2;
  EXPECT_EQ(Read(json)->head_dim, 128);
  json["head_dim"] = 32;
  EXPECT_EQ(Read(json)->head_dim, 32);
  json["model_type"] = "qwen2";
  json["architectures"] = {"Qwen2ForCausalLM"};
  json.erase("head_dim");
  EXPECT_EQ(Read(json)->head_dim, 16);
}

TEST(HfConfig, NullKvHeadsAreAsManyAsHeadsAndAbsentOnesThoseOfTheClass) {
  Json json = BaseConfig();
  json["architectures"] = {"MistralForCausalLM"};
  json["model_type"] = "mistral";
  json["num_attention_heads"] = 16;
  json["num_key_value_heads"] = nullptr;
  EXPECT_EQ(Read(json)->num_kv_heads, 16);
  json.erase("num_key_value_heads");
  EXPECT_EQ(Read(json)->num_kv_heads, 8);
  json["architectures"] = {"LlamaForCausalLM"};
  json["model_type"] = "llama";
  EXPECT_EQ(Read(json)->num_kv_heads, 16);
}

TEST(HfConfig, ReadsMpt) {
  Json json = Json::parse(R"({"architectures":["MPTForCausalLM"],"model_type":"mpt",
    "vocab_size":300,"d_model":64,"n_heads":4,"n_layers":2,"max_seq_len":4096,"no_bias":true,
    "expansion_ratio":4,"logit_scale":null,"learned_pos_emb":true,"norm_type":"low_precision_layernorm",
    "attn_config":{"alibi":true,"alibi_bias_max":16,"attn_impl":"torch","clip_qkv":null,
      "softmax_scale":0.5,"prefix_lm":false,"qk_ln":false,"attn_type":"multihead_attention"}})");
  Result<ModelConfig> config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->alibi_bias_max, 16);
  EXPECT_EQ(config->attention_scale, 0.5);
  EXPECT_EQ(config->intermediate_size, 256);
  EXPECT_EQ(config->context_length, 4096);
  EXPECT_TRUE(config->tie_embeddings);
  struct Bad {
    const char *member, *value, *message;
  };
  for (const Bad& bad :
       {Bad{"clip_qkv", "6.0", "attn_config.clip_qkv"}, Bad{"alibi", "false", "alibi false"},
        Bad{"prefix_lm", "true", "prefix_lm true"}, Bad{"qk_ln", "true", "qk_ln true"},
        Bad{"attn_type", "\"multiquery_attention\"", "'multiquery_attention'"},
        Bad{"kv_n_heads", "2", "attn_config.kv_n_heads"}}) {
    Json other = json;
    other["attn_config"][bad.member] = Json::parse(bad.value);
    EXPECT_EQ(Read(other).status().code(), ErrorCode::kUnsupported) << bad.member;
    EXPECT_THAT(Read(other).status().message(), HasSubstr(bad.message));
  }
  for (const Bad& bad : {Bad{"no_bias", "false", "no_bias false"},
                         Bad{"logit_scale", "\"inv_sqrt_d_model\"", "logit_scale"},
                         Bad{"expansion_ratio", "3", "expansion_ratio"}}) {
    Json other = json;
    other[bad.member] = Json::parse(bad.value);
    EXPECT_EQ(Read(other).status().code(), ErrorCode::kUnsupported) << bad.member;
    EXPECT_THAT(Read(other).status().message(), HasSubstr(bad.message));
  }
  json["attn_config"] = 3;
  EXPECT_EQ(Read(json).status().code(), ErrorCode::kCorrupt);
}

// As bigscience/bloom-560m has it.
TEST(HfConfig, ReadsTheOldNamesOfBloom) {
  Result<ModelConfig> config = Read(Json::parse(R"({"architectures":["BloomForCausalLM"],
    "model_type":"bloom","n_embed":1024,"n_layer":24,"num_attention_heads":16,"vocab_size":250880,
    "n_inner":null,"offset_alibi":100,"pretraining_tp":1,"layer_norm_epsilon":1e-05,
    "apply_residual_connection_post_layernorm":false,"masked_softmax_fusion":true})"));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->hidden_size, 1024);
  EXPECT_EQ(config->num_heads, 16);
  EXPECT_EQ(config->num_kv_heads, 16);
  EXPECT_EQ(config->intermediate_size, 4096);
  EXPECT_EQ(config->alibi_bias_max, 8);
  EXPECT_EQ(config->context_length, 2048);
}

// As llava-1.5-7b-hf has it: the sizes are left out, because they are Llama's.
TEST(HfConfig, ReadsTheTextPartOfLlava) {
  Result<ModelConfig> config =
      Read(Json::parse(R"({"architectures":["LlavaForConditionalGeneration"],
    "ignore_index":-100,"image_token_index":32000,"model_type":"llava","pad_token_id":32001,
    "projector_hidden_act":"gelu","text_config":{"_name_or_path":"lmsys/vicuna-7b-v1.5",
    "architectures":["LlamaForCausalLM"],"max_position_embeddings":4096,"model_type":"llama",
    "rms_norm_eps":1e-05,"torch_dtype":"float16","vocab_size":32064},
    "tie_word_embeddings":false,"vision_config":{"model_type":"clip_vision_model"}})"));
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->vocab_size, 32064);
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->intermediate_size, 11008);
  EXPECT_EQ(config->num_layers, 32);
  EXPECT_EQ(config->num_kv_heads, 32);
  EXPECT_EQ(config->context_length, 4096);
  EXPECT_FALSE(config->tie_embeddings);
}

// As Mistral-Small-3.1-24B has it.
TEST(HfConfig, ReadsTheTextPartOfMistral3) {
  Json json = Json::parse(R"({"architectures":["Mistral3ForConditionalGeneration"],
    "image_token_index":10,"model_type":"mistral3","spatial_merge_size":2,"text_config":{
    "attention_dropout":0.0,"head_dim":128,"hidden_act":"silu","hidden_size":5120,
    "intermediate_size":32768,"max_position_embeddings":131072,"model_type":"mistral",
    "num_attention_heads":32,"num_hidden_layers":40,"num_key_value_heads":8,"rms_norm_eps":1e-05,
    "rope_theta":1000000000.0,"sliding_window":null,"vocab_size":131072},
    "vision_config":{"model_type":"pixtral"}})");
  Result<ModelConfig> config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "mistral");
  EXPECT_EQ(config->num_layers, 40);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->rope.theta, 1e9);
  EXPECT_TRUE(config->layer_windows.empty());
  EXPECT_TRUE(config->tie_embeddings);  // the class's default; what is stored decides
  json["text_config"]["tie_word_embeddings"] = false;
  EXPECT_FALSE(Read(json)->tie_embeddings);
  json["text_config"]["model_type"] = "ministral3";
  EXPECT_EQ(Read(json).status().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(Read(json).status().message(), HasSubstr("text_config: model_type 'ministral3'"));
  json["text_config"]["model_type"] = "mistral3";
  EXPECT_EQ(Read(json).status().code(), ErrorCode::kUnsupported);
  json["text_config"] = nullptr;
  EXPECT_EQ(Read(json).status().code(), ErrorCode::kCorrupt);
}

// As the first files of falcon-7b, falcon-40b and falcon-rw-1b have it.
TEST(HfConfig, ReadsTheFirstNamesOfFalcon) {
  Json json = Json::parse(R"({"alibi":false,"apply_residual_connection_post_layernorm":false,
    "architectures":["RWForCausalLM"],"bias":false,"hidden_size":4544,"layer_norm_epsilon":1e-05,
    "model_type":"RefinedWebModel","multi_query":true,"n_head":71,"n_layer":32,
    "parallel_attn":true,"vocab_size":65024})");
  Result<ModelConfig> config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->architecture, "falcon");
  EXPECT_EQ(config->num_kv_heads, 1);
  EXPECT_TRUE(config->parallel_blocks);
  EXPECT_FALSE(config->separate_ffn_norm);
  Json large = json;
  large.erase("multi_query");
  large.update(Json::parse(R"({"model_type":"RefinedWeb","hidden_size":8192,"n_head":128,
                               "n_head_kv":8,"n_layer":60})"));
  config = Read(large);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->num_kv_heads, 8);
  EXPECT_TRUE(config->parallel_blocks);
  EXPECT_TRUE(config->separate_ffn_norm);
  json.update(Json::parse(R"({"alibi":true,"bias":true,"hidden_size":2048,"multi_query":false,
                              "n_head":32,"n_layer":24,"parallel_attn":false})"));
  config = Read(json);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->num_kv_heads, 32);
  EXPECT_EQ(config->alibi_bias_max, 8);
  EXPECT_FALSE(config->parallel_blocks);
}

TEST(HfConfig, WindowsOfMinistralAndQwenByLayer) {
  Json json = BaseConfig();
  json["architectures"] = {"MinistralForCausalLM"};
  json["model_type"] = "ministral";
  json["num_key_value_heads"] = 2;
  EXPECT_EQ(Read(json)->layer_windows, (std::vector<int64_t>{4096, 4096}));
  json["sliding_window"] = 9;
  json["layer_types"] = {"full_attention", "sliding_attention"};
  EXPECT_EQ(Read(json)->layer_windows, (std::vector<int64_t>{0, 9}));
  json["sliding_window"] = nullptr;
  json.erase("layer_types");
  EXPECT_TRUE(Read(json)->layer_windows.empty());

  json["architectures"] = {"Qwen2ForCausalLM"};
  json["model_type"] = "qwen2";
  json["max_window_layers"] = 1;
  EXPECT_TRUE(Read(json)->layer_windows.empty());
  json["use_sliding_window"] = true;
  EXPECT_TRUE(Read(json)->layer_windows.empty());  // null means none
  json["sliding_window"] = 9;
  EXPECT_EQ(Read(json)->layer_windows, (std::vector<int64_t>{0, 9}));
  json.erase("sliding_window");
  EXPECT_EQ(Read(json)->layer_windows, (std::vector<int64_t>{0, 4096}));
  json["use_sliding_window"] = false;
  EXPECT_TRUE(Read(json)->layer_windows.empty());
}

TEST(HfConfig, TextThatIsNoConfigurationIsRefused) {
  for (const char* text : {"", "[]", "3", "{", "{}", "{\"vocab_size\":1,\"vocab_size\":2}"}) {
    EXPECT_EQ(ModelConfigFromHuggingFace(text).status().code(), ErrorCode::kCorrupt) << text;
  }
  EXPECT_EQ(ModelConfigFromHuggingFace("{\"a\":" + std::string(100'000, '[')).status().code(),
            ErrorCode::kLimitExceeded);
}

}  // namespace
}  // namespace sluice
