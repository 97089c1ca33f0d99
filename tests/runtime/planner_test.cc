// Figures that can be checked by hand, and the model of time.
#include "runtime/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

constexpr char kLlama2_70B[] =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8192,
  "intermediate_size":28672,"num_hidden_layers":80,"num_attention_heads":64,"num_key_value_heads":8,
  "vocab_size":32000,"max_position_embeddings":4096,"rms_norm_eps":1e-5})";
constexpr char kOpt13B[] =
    R"({"model_type":"opt-like","hidden_size":5120,"ffn_dim":20480,"num_hidden_layers":40,
  "num_attention_heads":40,"vocab_size":50272,"max_position_embeddings":2048,"activation_function":"relu"})";
constexpr char kGpt3[] =
    R"({"model_type":"gpt3-like","n_embd":12288,"n_layer":96,"n_head":96,"vocab_size":50257,
  "n_positions":2048,"activation_function":"gelu_new"})";
constexpr char kMixtral[] =
    R"({"model_type":"mixtral-like","hidden_size":4096,"intermediate_size":14336,
  "num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,"num_local_experts":8,"vocab_size":32000,
  "max_position_embeddings":32768,"hidden_act":"silu","tie_word_embeddings":false})";

ModelOutline Outline(const char* config, const char* quantization = "auto") {
  Result<ModelOutline> outline = OutlineConfig(config, *ParseQuantization(quantization));
  EXPECT_TRUE(outline.ok()) << outline.status().message();
  return outline.ok() ? std::move(*outline) : ModelOutline();
}

TEST(Planner, KvCacheOfKnownModels) {
  EXPECT_EQ(KvBytesPerToken(Outline(kLlama2_70B).layer_states, 2), 327'680u);
  EXPECT_EQ(KvBytesPerToken(Outline(kLlama2_70B).layer_states, 2) * 8192, 5 * kGiB / 2);
  EXPECT_EQ(KvBytesPerToken(Outline(kOpt13B).layer_states, 2), 819'200u);
  EXPECT_EQ(KvBytesPerToken(Outline(kGpt3).layer_states, 2), 4'718'592u);
}

TEST(Planner, ABatchOf16Sequences) {
  PlanRequest request;
  request.context_tokens = 4096;
  request.sequences = 16;
  request.ram_bytes = 200 * kGiB;
  const Result<Plan> plan = PlanMemory(Outline(kLlama2_70B), request);
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  EXPECT_EQ(plan->kv_bytes, 21'474'836'480u);
}

TEST(Planner, RequestsThatFitBesideTheWeights) {
  const uint64_t sequence = 327'680 * uint64_t{8192};
  EXPECT_EQ(SequencesThatFit(80 * kGiB, 35 * kGiB, sequence), 18);
  EXPECT_EQ(SequencesThatFit(80 * kGiB, 35 * kGiB, sequence / 2), 36);
  EXPECT_EQ(SequencesThatFit(80 * kGiB, 80 * kGiB, sequence), 0);
  EXPECT_EQ(SequencesThatFit(8 * kGiB, 80 * kGiB, sequence), 0);
  EXPECT_EQ(SequencesThatFit(8 * kGiB, kGiB, 0), 0);
}

TEST(Planner, BytesOfSeventyBillionWeights) {
  EXPECT_EQ(WeightBytes(70'000'000'000, 16), 140'000'000'000u);
  EXPECT_EQ(WeightBytes(70'000'000'000, 8), 70'000'000'000u);
  EXPECT_EQ(WeightBytes(70'000'000'000, 4), 35'000'000'000u);
  EXPECT_EQ(WeightBytes(3, 4), 1u);
}

// 80 (2 x 8192 x 8192 + 2 x 1024 x 8192 + 3 x 8192 x 28672 + 2 x 8192) + 8192 + 2 x 32000 x 8192.
TEST(Planner, ParametersOfLlama2_70B) {
  EXPECT_EQ(Outline(kLlama2_70B).parameters(), 68'976'648'192u);
}

// config.json as their authors published it, and the parameters that they state (safetensors'
// metadata of the model pages).
TEST(Planner, ParametersOfPublishedModels) {
  struct Published {
    const char* name;
    const char* config;
    uint64_t parameters;
  };
  for (const Published& model : {
           Published{"Mistral-7B-v0.1", R"({"architectures":["MistralForCausalLM"],
  "hidden_act":"silu","hidden_size":4096,"intermediate_size":14336,"max_position_embeddings":32768,
  "model_type":"mistral","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,
  "rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":4096,"tie_word_embeddings":false,
  "vocab_size":32000})",
                     7'241'732'096},
           Published{"Qwen2.5-7B", R"({"architectures":["Qwen2ForCausalLM"],"hidden_act":"silu",
  "hidden_size":3584,"intermediate_size":18944,"max_position_embeddings":131072,
  "max_window_layers":28,"model_type":"qwen2","num_attention_heads":28,"num_hidden_layers":28,
  "num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"sliding_window":131072,
  "tie_word_embeddings":false,"use_sliding_window":false,"vocab_size":152064})",
                     7'615'616'512},
           Published{"Qwen3-8B", R"({"architectures":["Qwen3ForCausalLM"],"attention_bias":false,
  "head_dim":128,"hidden_act":"silu","hidden_size":4096,"intermediate_size":12288,
  "max_position_embeddings":40960,"max_window_layers":36,"model_type":"qwen3",
  "num_attention_heads":32,"num_hidden_layers":36,"num_key_value_heads":8,"rms_norm_eps":1e-06,
  "rope_scaling":null,"rope_theta":1000000,"sliding_window":null,"tie_word_embeddings":false,
  "use_sliding_window":false,"vocab_size":151936})",
                     8'190'735'360},
           Published{"Phi-3-mini-4k-instruct", R"({"architectures":["Phi3ForCausalLM"],
  "attention_bias":false,"hidden_act":"silu","hidden_size":3072,"intermediate_size":8192,
  "max_position_embeddings":4096,"model_type":"phi3","num_attention_heads":32,
  "num_hidden_layers":32,"num_key_value_heads":32,"original_max_position_embeddings":4096,
  "rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":10000.0,"sliding_window":2047,
  "tie_word_embeddings":false,"vocab_size":32064})",
                     3'821'079'552},
           Published{"gemma-2-9b", R"({"architectures":["Gemma2ForCausalLM"],
  "attn_logit_softcapping":50.0,"final_logit_softcapping":30.0,"head_dim":256,
  "hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh","hidden_size":3584,
  "intermediate_size":14336,"max_position_embeddings":8192,"model_type":"gemma2",
  "num_attention_heads":16,"num_hidden_layers":42,"num_key_value_heads":8,
  "query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_theta":10000.0,"sliding_window":4096,
  "vocab_size":256000})",
                     9'241'705'984},
           Published{"falcon-7b", R"({"alibi":false,"architectures":["FalconForCausalLM"],
  "bias":false,"hidden_size":4544,"layer_norm_epsilon":1e-05,"model_type":"falcon",
  "multi_query":true,"new_decoder_architecture":false,"num_attention_heads":71,
  "num_hidden_layers":32,"parallel_attn":true,"vocab_size":65024})",
                     6'921'720'704},
           Published{"starcoder2-3b", R"({"architectures":["Starcoder2ForCausalLM"],
  "hidden_act":"gelu_pytorch_tanh","hidden_size":3072,"intermediate_size":12288,
  "max_position_embeddings":16384,"model_type":"starcoder2","norm_epsilon":1e-05,
  "norm_type":"layer_norm","num_attention_heads":24,"num_hidden_layers":30,
  "num_key_value_heads":2,"rope_theta":999999.4420358813,"sliding_window":4096,"use_bias":true,
  "vocab_size":49152})",
                     3'030'371'328},
           Published{"opt-125m",
                     R"({"architectures":["OPTForCausalLM"],"activation_function":"relu",
  "do_layer_norm_before":true,"ffn_dim":3072,"hidden_size":768,"max_position_embeddings":2048,
  "model_type":"opt","num_attention_heads":12,"num_hidden_layers":12,"vocab_size":50272,
  "word_embed_proj_dim":768})",
                     125'239'296 - 2 * 768},  // two rows of positions are never read
       }) {
    const ModelOutline outline = Outline(model.config);
    EXPECT_TRUE(outline.description.has_value()) << model.name << ": " << outline.why_not;
    EXPECT_EQ(outline.parameters(), model.parameters) << model.name;
  }
}

TEST(Planner, BitsPerWeightOfEachQuantization) {
  const auto bits = [](const char* quantization) {
    const ModelOutline outline = Outline(kLlama2_70B, quantization);
    return 8.0 * static_cast<double>(outline.weight_bytes()) /
           static_cast<double>(outline.parameters());
  };
  EXPECT_NEAR(bits("f16"), 16, 0.01);
  EXPECT_NEAR(bits("int8"), 8.5, 0.01);   // a f16 scale for 32 weights
  EXPECT_NEAR(bits("int4"), 4.25, 0.01);  // a scale, a zero point and padding for 128
}

TEST(Planner, ExpertsAreGroupsOfTheirOwn) {
  const ModelOutline outline = Outline(kMixtral);
  EXPECT_EQ(
      std::count_if(outline.groups.begin(), outline.groups.end(),
                    [](const OutlineGroup& group) { return group.kind == GroupKind::kExpert; }),
      32 * 8);
  EXPECT_NEAR(static_cast<double>(outline.parameters()), 46.7e9, 0.1e9);
  EXPECT_FALSE(outline.description.has_value());
  EXPECT_THAT(outline.why_not, HasSubstr("mixtral-like"));
}

// 48 (2 x 4096 x 2048 + 2 x 512 x 2048 + 128 x (3 x 768 x 2048 + 2048) + 2 x 2048)
// + 2 x 151936 x 2048 + 2048: the width of an expert is a field of its own.
TEST(Planner, ExpertsNarrowerThanADenseLayer) {
  const ModelOutline outline = Outline(
      R"({"model_type":"narrow-experts","hidden_size":2048,"intermediate_size":6144,
  "moe_intermediate_size":768,"num_hidden_layers":48,"num_attention_heads":32,"num_key_value_heads":4,
  "head_dim":128,"num_experts":128,"vocab_size":151936,"max_position_embeddings":40960,
  "hidden_act":"silu","tie_word_embeddings":false})");
  EXPECT_EQ(outline.parameters(), 30'532'110'336u);
}

TEST(Planner, AConfigurationOfAFewBytesCannotAskForAGiantCatalogue) {
  const QuantizationPlan plan;
  for (const char* text :
       {R"({"model_type":"x","n_layer":4096,"n_embd":64,"n_head":2,"vocab_size":10,
            "num_experts":4096})",
        R"({"model_type":"x","n_layer":1,"n_embd":64,"n_head":2,"vocab_size":10,
            "num_experts":2147483648})",
        R"({"model_type":"x","n_layer":4096,"n_embd":1,"n_head":2147483648,
            "head_dim":536870912,"vocab_size":10})"}) {
    EXPECT_EQ(OutlineConfig(text, plan).status().code(), ErrorCode::kCorrupt) << text;
  }
}

TEST(Planner, ConfigurationsWithoutSizesAreRefusedByField) {
  const QuantizationPlan plan;
  for (const auto& [text, field] : std::vector<std::pair<const char*, const char*>>{
           {R"({"model_type":"x"})", "num_hidden_layers"},
           {R"({"model_type":"x","n_layer":2,"n_embd":64,"n_head":-1,"vocab_size":10})", "n_head"},
           {R"({"model_type":"x","n_layer":2,"n_embd":64,"n_head":"two","vocab_size":10})",
            "n_head"},
           {R"({"model_type":"x","n_layer":100000,"n_embd":64,"n_head":2,"vocab_size":10})",
            "layers"},
           {R"({"model_type":"x","n_layer":2,"n_embd":99999999999,"n_head":2,"vocab_size":10})",
            "n_embd"}}) {
    const Status status = OutlineConfig(text, plan).status();
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt) << text;
    EXPECT_THAT(status.message(), HasSubstr(field));
  }
  EXPECT_EQ(OutlineConfig("[]", plan).status().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(OutlineConfig("{", plan).status().code(), ErrorCode::kCorrupt);
}

TEST(Planner, TooLittleMemoryIsRefusedWithWhatWouldDo) {
  PlanRequest request;
  request.context_tokens = 512;
  const ModelOutline outline = Outline(kLlama2_70B);
  request.ram_bytes = kGiB / 4;
  const Status status = PlanMemory(outline, request).status();
  EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit);
  request.ram_bytes = 100 * kGiB;
  const uint64_t smallest = PlanMemory(outline, request)->smallest_ram_bytes;
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(smallest)));
  request.ram_bytes = smallest;
  EXPECT_TRUE(PlanMemory(outline, request).ok());
  request.ram_bytes = smallest - 1;
  EXPECT_FALSE(PlanMemory(outline, request).ok());
}

// 2^30 sequences of 2^30 tokens of 327,680 bytes: 0 modulo 2^64.
TEST(Planner, AKvCacheWhoseBytesOverflowDoesNotFit) {
  const ModelOutline outline = Outline(kLlama2_70B);
  for (const int64_t count : {int64_t{1} << 30, int64_t{1} << 31, INT64_MAX}) {
    PlanRequest request;
    request.context_tokens = count;
    request.sequences = count;
    request.ram_bytes = 100 * kGiB;
    const Status status = PlanMemory(outline, request).status();
    EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit) << count;
    EXPECT_THAT(status.message(), HasSubstr(std::to_string(count)));
  }
}

PlanRates Rates(double drive) {
  PlanRates rates;
  rates.drive_bytes_per_s = drive;
  rates.matmul = {{"int4:g128:zero", 20e9, 100e9}, {"int8:g32", 20e9, 100e9}};
  return rates;
}

TEST(Planner, ADriveThatIsSlowerThanTheProcessorDecidesTheTime) {
  const ModelOutline outline = Outline(kLlama2_70B);
  PlanRequest request;
  request.context_tokens = 512;
  request.ram_bytes = 20 * kGiB;
  const Result<Plan> plan = MakePlan(outline, request, Rates(2e9));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->decode.bound, Bound::kDrive);
  EXPECT_NEAR(plan->decode.tokens_per_s, 2e9 / static_cast<double>(plan->placement.streamed_bytes),
              1e-9);
  EXPECT_GT(plan->decode_with_a_gib_more, plan->decode.tokens_per_s);
  // 512 tokens share the bytes of a pass: then arithmetic decides.
  EXPECT_EQ(plan->prefill.bound, Bound::kProcessor);
}

TEST(Planner, ADriveThatIsSlowerBesideWorkFinishesAlone) {
  const ModelOutline outline = Outline(kLlama2_70B);
  PlanRequest request;
  request.context_tokens = 512;
  request.ram_bytes = 20 * kGiB;
  PlanRates rates = Rates(2e9);
  rates.busy_drive_bytes_per_s = 1e9;
  const Result<Plan> plan = MakePlan(outline, request, rates);
  ASSERT_TRUE(plan.ok());
  const auto streamed = static_cast<double>(plan->placement.streamed_bytes);
  const double work_s = plan->decode.processor_s;
  EXPECT_GT(work_s, 1.0);  // about 35 GB at 20 GB/s
  EXPECT_NEAR(1 / plan->decode.tokens_per_s, work_s + (streamed - 1e9 * work_s) / 2e9, 1e-6);
  EXPECT_EQ(plan->decode.bound, Bound::kDrive);
}

// The head of kLlama2_70B: 32,000 rows of 8,192 channels in int8, in groups of 32 with a scale of
// two bytes (a multiple of a page), and a norm of 8,192 channels of two bytes.
constexpr double kHeadBytes = 32'000.0 * (8192 + 256 * 2) + 8192 * 2;

TEST(Planner, APromptNeedsTheHeadForItsLastTokenAlone) {
  const ModelOutline outline = Outline(kLlama2_70B);
  PlanRequest request;
  request.context_tokens = 1024;
  request.ram_bytes = 60 * kGiB;
  PlanRates rates = Rates(2e9);
  const Result<Plan> plan = MakePlan(outline, request, rates);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->placement.streamed_bytes, 0u);
  // The embedding, as large as the head's matrix, is in no product.
  const double layers =
      static_cast<double>(outline.weight_bytes()) - kHeadBytes - (kHeadBytes - 8192 * 2);
  EXPECT_NEAR(plan->prefill.processor_s, layers * 512 / 100e9 + kHeadBytes / 20e9 + 80 * 25e-6,
              1e-9);
  EXPECT_NEAR(plan->decode.processor_s, (layers + kHeadBytes) / 20e9 + 80 * 25e-6, 1e-9);
  // A type without a rate of its own counts as the slowest.
  rates.matmul = {{"int4:g128:zero", 20e9, 100e9}, {"other", 10e9, 50e9}};
  EXPECT_NEAR(MakePlan(outline, request, rates)->decode.processor_s,
              (layers + kHeadBytes) / 20e9 + kHeadBytes / 20e9 + 80 * 25e-6, 2e-4)
      << "the head and the norms at half the rate";
}

TEST(Planner, PromptsInBf16GoAtTheirOwnRateAndAnswersAtThatOfInt8) {
  const ModelOutline outline = Outline(kLlama2_70B);
  PlanRequest request;
  request.context_tokens = 512;
  request.ram_bytes = 60 * kGiB;
  PlanRates rates = Rates(2e9);
  for (MatmulRate& rate : rates.matmul) rate.bf16_batch_bytes_per_s = 3 * rate.batch_bytes_per_s;
  const Result<Plan> int8 = MakePlan(outline, request, rates);
  request.bf16_prompts = true;
  const Result<Plan> bf16 = MakePlan(outline, request, rates);
  ASSERT_TRUE(int8.ok() && bf16.ok());
  EXPECT_EQ(bf16->decode.tokens_per_s, int8->decode.tokens_per_s);
  // About 35 GB and 512 tokens at 100 or 300 GB/s. A layer takes 25 us besides, and the head, at 20
  // GB/s for the last token of the prompt, is in int8 either way.
  const double besides = 80 * 25e-6 + kHeadBytes / 20e9;
  EXPECT_NEAR((int8->prefill.processor_s - besides) / (bf16->prefill.processor_s - besides), 3,
              1e-9);
  // A copy of 512 tokens of the widest buffer, 28,672 channels of two bytes; and its alignment.
  const uint64_t copy = bf16->activation_bytes - int8->activation_bytes;
  EXPECT_GE(copy, 512u * 28'672 * 2);
  EXPECT_LE(copy, 512u * 28'672 * 2 + 4096);
  EXPECT_EQ(bf16->smallest_ram_bytes, int8->smallest_ram_bytes + copy);
  // A shape that sluice does not run has about as much.
  const ModelOutline unknown = Outline(kMixtral);
  const uint64_t guessed = PlanMemory(unknown, request)->activation_bytes;
  request.bf16_prompts = false;
  EXPECT_EQ(guessed - PlanMemory(unknown, request)->activation_bytes, 512u * 4096 * 8);
}

TEST(Planner, InMemoryTheProcessorDecidesAndMoreMemoryHelpsNothing) {
  const ModelOutline outline = Outline(kLlama2_70B);
  PlanRequest request;
  request.context_tokens = 512;
  request.ram_bytes = 60 * kGiB;
  const Result<Plan> plan = MakePlan(outline, request, Rates(2e9));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->placement.streamed_bytes, 0u);
  EXPECT_EQ(plan->decode.bound, Bound::kProcessor);
  // Weights that are multiplied with, at 20 GB/s; a little for the layers.
  EXPECT_NEAR(1 / plan->decode.tokens_per_s,
              static_cast<double>(outline.weight_bytes() - plan->placement.gathered_bytes) / 20e9,
              0.01);
  EXPECT_EQ(plan->decode_with_a_gib_more, plan->decode.tokens_per_s);
}

}  // namespace
}  // namespace sluice
