#include "loaders/tensor_names.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

ModelConfig Config(const char* architecture) {
  ModelConfig config;
  config.architecture = architecture;
  return config;
}

TEST(TensorNames, AreTranslatedAndBack) {
  struct Names {
    const char *canonical, *hugging_face, *gguf;
  };
  for (const Names& names : {
           Names{"embed.weight", "model.embed_tokens.weight", "token_embd.weight"},
           Names{"head.weight", "lm_head.weight", "output.weight"},
           Names{"norm.weight", "model.norm.weight", "output_norm.weight"},
           Names{"layers.0.attn_norm.weight", "model.layers.0.input_layernorm.weight",
                 "blk.0.attn_norm.weight"},
           Names{"layers.7.attn.q.weight", "model.layers.7.self_attn.q_proj.weight",
                 "blk.7.attn_q.weight"},
           Names{"layers.10.attn.k.bias", "model.layers.10.self_attn.k_proj.bias",
                 "blk.10.attn_k.bias"},
           Names{"layers.1.attn.v.weight", "model.layers.1.self_attn.v_proj.weight",
                 "blk.1.attn_v.weight"},
           Names{"layers.1.attn.o.bias", "model.layers.1.self_attn.o_proj.bias",
                 "blk.1.attn_output.bias"},
           Names{"layers.4095.ffn_norm.weight", "model.layers.4095.post_attention_layernorm.weight",
                 "blk.4095.ffn_norm.weight"},
           Names{"layers.2.ffn.gate.weight", "model.layers.2.mlp.gate_proj.weight",
                 "blk.2.ffn_gate.weight"},
           Names{"layers.2.ffn.up.bias", "model.layers.2.mlp.up_proj.bias", "blk.2.ffn_up.bias"},
           Names{"layers.2.ffn.down.weight", "model.layers.2.mlp.down_proj.weight",
                 "blk.2.ffn_down.weight"},
       }) {
    const TensorDialect hugging_face = HuggingFaceDialect(Config("llama"));
    const TensorDialect gguf = GgufDialect(Config("llama"));
    EXPECT_EQ(hugging_face.CanonicalName(names.hugging_face), names.canonical);
    EXPECT_EQ(gguf.CanonicalName(names.gguf), names.canonical);
    EXPECT_EQ(hugging_face.ForeignName(names.canonical), names.hugging_face);
    EXPECT_EQ(gguf.ForeignName(names.canonical), names.gguf);
  }
}

TEST(TensorNames, UnknownOnesStayUnknown) {
  for (const char* name :
       {"", ".", "weight", "model.", "model.layers.", "model.layers.0",
        "model.layers..self_attn.q_proj.weight", "model.layers.-1.self_attn.q_proj.weight",
        "model.layers.01.self_attn.q_proj.weight", "model.layers.9999999.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.scale", "model.layers.0.mlp.gate.weight",
        "model.embed_tokens", "layers.0.attn.q.weight", "lm_head.weight.weight"}) {
    EXPECT_FALSE(HuggingFaceDialect(Config("llama")).CanonicalName(name).has_value()) << name;
  }
  for (const char* name : {"blk.0.attn_rel.weight", "blk.00.attn_q.weight", "blk.0.attn_q",
                           "blk.x.attn_q.weight", "token_embd", "embed.weight"}) {
    EXPECT_FALSE(GgufDialect(Config("llama")).CanonicalName(name).has_value()) << name;
  }
}

TEST(TensorNames, DifferByArchitecture) {
  struct Names {
    const char *architecture, *foreign, *canonical;
  };
  for (const Names& names : {
           Names{"gemma2", "model.layers.1.post_attention_layernorm.weight",
                 "layers.1.attn_post_norm.weight"},
           Names{"gemma3", "language_model.model.layers.1.self_attn.q_norm.weight",
                 "layers.1.attn.q_norm.weight"},
           Names{"llama", "language_model.lm_head.weight", "head.weight"},
           Names{"mistral", "language_model.model.embed_tokens.weight", "embed.weight"},
           Names{"mistral", "model.language_model.norm.weight", "norm.weight"},
           Names{"gemma3", "model.language_model.layers.1.self_attn.q_norm.weight",
                 "layers.1.attn.q_norm.weight"},
           Names{"gemma3", "model.layers.1.self_attn.q_norm.weight", "layers.1.attn.q_norm.weight"},
           Names{"phi3", "model.layers.0.self_attn.qkv_proj.weight", "layers.0.attn.qkv.weight"},
           Names{"starcoder2", "model.layers.0.mlp.c_fc.bias", "layers.0.ffn.up.bias"},
           Names{"opt", "decoder.embed_positions.weight", "positions.weight"},
           Names{"opt", "model.decoder.layers.11.final_layer_norm.bias", "layers.11.ffn_norm.bias"},
           Names{"opt", "model.decoder.final_layer_norm.bias", "norm.bias"},
           Names{"opt", "model.decoder.project_in.weight", "layers.0.project_in.weight"},
           Names{"bloom", "word_embeddings_layernorm.bias", "layers.0.embed_norm.bias"},
           Names{"bloom", "h.3.self_attention.dense.bias", "layers.3.attn.o.bias"},
           Names{"mpt", "transformer.blocks.3.attn.Wqkv.weight", "layers.3.attn.qkv.weight"},
           Names{"mpt", "transformer.norm_f.weight", "norm.weight"},
           Names{"gpt_bigcode", "transformer.h.2.attn.c_attn.bias", "layers.2.attn.qkv.bias"},
           Names{"falcon", "transformer.h.2.ln_mlp.weight", "layers.2.ffn_norm.weight"},
       }) {
    EXPECT_EQ(HuggingFaceDialect(Config(names.architecture)).CanonicalName(names.foreign),
              names.canonical);
  }
  EXPECT_EQ(HuggingFaceDialect(Config("bloom")).ForeignName("layers.0.embed_norm.bias"),
            "transformer.word_embeddings_layernorm.bias");
  EXPECT_EQ(GgufDialect(Config("bloom")).ForeignName("layers.0.embed_norm.bias"),
            "token_embd_norm.bias");
  EXPECT_EQ(HuggingFaceDialect(Config("llama")).CanonicalName("transformer.h.2.ln_1.weight"),
            std::nullopt);
}

// llama.cpp calls the norm of the feed-forward network attn_norm where the attention has another.
TEST(TensorNames, NormsOfParallelBlocksInGguf) {
  ModelConfig config = Config("falcon");
  config.parallel_blocks = true;
  config.separate_ffn_norm = true;
  EXPECT_EQ(GgufDialect(config).CanonicalName("blk.0.attn_norm.bias"), "layers.0.ffn_norm.bias");
  EXPECT_EQ(GgufDialect(config).CanonicalName("blk.0.attn_norm_2.bias"), "layers.0.attn_norm.bias");
  config.separate_ffn_norm = false;
  EXPECT_EQ(GgufDialect(config).CanonicalName("blk.0.attn_norm.bias"), "layers.0.attn_norm.bias");
}

TEST(TensorNames, LeftoversOfOldConvertersAndOtherPartsAreKnown) {
  const TensorDialect llama = HuggingFaceDialect(Config("llama"));
  EXPECT_TRUE(llama.IsIgnored("model.layers.3.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(llama.IsIgnored("model.layers.3.self_attn.q_norm.weight"));
  for (const auto& [architecture, name] :
       {std::pair("gpt_neox", "gpt_neox.layers.0.attention.bias"),
        std::pair("gpt_neox", "gpt_neox.layers.0.attention.masked_bias"),
        std::pair("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"),
        std::pair("gpt_bigcode", "transformer.h.0.attn.bias"),
        std::pair("falcon", "transformer.h.0.self_attention.rotary_emb.inv_freq")}) {
    const TensorDialect dialect = HuggingFaceDialect(Config(architecture));
    EXPECT_EQ(dialect.CanonicalName(name), std::nullopt) << name;
    EXPECT_TRUE(dialect.IsIgnored(name)) << name;
  }
  // The text part of a checkpoint that also reads images.
  for (const char* architecture : {"gemma3", "llama", "mistral", "qwen2"}) {
    const TensorDialect dialect = HuggingFaceDialect(Config(architecture));
    EXPECT_TRUE(dialect.IsIgnored("vision_tower.layers.0.weight"));
    EXPECT_TRUE(dialect.IsIgnored("model.multi_modal_projector.linear_1.bias"));
    EXPECT_TRUE(dialect.IsIgnored("image_newline"));
    EXPECT_FALSE(dialect.IsIgnored("language_model.other.weight"));
  }
  const TensorDialect gguf = GgufDialect(Config("phi3"));
  EXPECT_TRUE(gguf.IsIgnored("rope_freqs.weight"));
  EXPECT_TRUE(gguf.IsIgnored("rope_factors_long.weight"));
  EXPECT_FALSE(gguf.IsIgnored("blk.0.attn_rel.weight"));
}

}  // namespace
}  // namespace sluice
