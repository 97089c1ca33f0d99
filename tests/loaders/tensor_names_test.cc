#include "loaders/tensor_names.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

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
    EXPECT_EQ(CanonicalNameFromHuggingFace(names.hugging_face), names.canonical);
    EXPECT_EQ(CanonicalNameFromGguf(names.gguf), names.canonical);
    EXPECT_EQ(HuggingFaceNameOf(names.canonical), names.hugging_face);
    EXPECT_EQ(GgufNameOf(names.canonical), names.gguf);
  }
}

TEST(TensorNames, UnknownOnesStayUnknown) {
  for (const char* name :
       {"", ".", "weight", "model.", "model.layers.", "model.layers.0",
        "model.layers..self_attn.q_proj.weight", "model.layers.-1.self_attn.q_proj.weight",
        "model.layers.01.self_attn.q_proj.weight", "model.layers.9999999.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.scale", "model.layers.0.mlp.gate.weight",
        "model.embed_tokens", "layers.0.attn.q.weight", "lm_head.weight.weight"}) {
    EXPECT_FALSE(CanonicalNameFromHuggingFace(name).has_value()) << name;
  }
  for (const char* name : {"blk.0.attn_qkv.weight", "blk.00.attn_q.weight", "blk.0.attn_q",
                           "blk.x.attn_q.weight", "token_embd", "embed.weight"}) {
    EXPECT_FALSE(CanonicalNameFromGguf(name).has_value()) << name;
  }
}

TEST(TensorNames, LeftoversOfOldConvertersAreKnown) {
  EXPECT_TRUE(IsIgnoredHuggingFaceTensor("model.layers.3.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(IsIgnoredHuggingFaceTensor("model.layers.3.self_attn.q_norm.weight"));
  EXPECT_TRUE(IsIgnoredGgufTensor("rope_freqs.weight"));
  EXPECT_FALSE(IsIgnoredGgufTensor("blk.0.attn_q_norm.weight"));
}

}  // namespace
}  // namespace sluice
