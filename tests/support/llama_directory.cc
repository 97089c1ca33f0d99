#include "tests/support/llama_directory.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "formats/half.h"
#include "tests/support/foreign_files.h"
#include "tests/support/program.h"

namespace sluice::testing {
namespace {

using Json = nlohmann::ordered_json;

struct NamedShape {
  std::string name;
  std::vector<uint64_t> shape;

  uint64_t count() const { return shape[0] * (shape.size() > 1 ? shape[1] : 1); }
};

std::vector<NamedShape> TensorsOf(const LlamaDirectory& model) {
  const auto vocab = static_cast<uint64_t>(model.vocab);
  const auto hidden = static_cast<uint64_t>(model.hidden);
  const auto ffn = static_cast<uint64_t>(model.ffn);
  const uint64_t kv =
      hidden / static_cast<uint64_t>(model.heads) * static_cast<uint64_t>(model.kv_heads);
  std::vector<NamedShape> tensors = {{"model.embed_tokens.weight", {vocab, hidden}}};
  for (int layer = 0; layer < model.layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    tensors.push_back({prefix + "self_attn.q_proj.weight", {hidden, hidden}});
    tensors.push_back({prefix + "self_attn.k_proj.weight", {kv, hidden}});
    tensors.push_back({prefix + "self_attn.v_proj.weight", {kv, hidden}});
    tensors.push_back({prefix + "self_attn.o_proj.weight", {hidden, hidden}});
    tensors.push_back({prefix + "mlp.gate_proj.weight", {ffn, hidden}});
    tensors.push_back({prefix + "mlp.up_proj.weight", {ffn, hidden}});
    tensors.push_back({prefix + "mlp.down_proj.weight", {hidden, ffn}});
    tensors.push_back({prefix + "input_layernorm.weight", {hidden}});
    tensors.push_back({prefix + "post_attention_layernorm.weight", {hidden}});
  }
  tensors.push_back({"model.norm.weight", {hidden}});
  tensors.push_back({"lm_head.weight", {vocab, hidden}});
  return tensors;
}

std::string Encoded(const std::string& dtype, float value) {
  if (dtype == "F32") return LittleEndian(value);
  return LittleEndian(dtype == "F16" ? FloatToF16(value) : FloatToBf16(value));
}

void WriteShard(const LlamaDirectory& model, const std::vector<NamedShape>& tensors,
                const std::string& path, std::mt19937* random) {
  const uint64_t value_bytes = model.dtype == std::string("F32") ? 4 : 2;
  Json header;
  uint64_t size = 0;
  for (const NamedShape& tensor : tensors) {
    const uint64_t end = size + tensor.count() * value_bytes;
    header[tensor.name] = {
        {"dtype", model.dtype}, {"shape", tensor.shape}, {"data_offsets", {size, end}}};
    size = end;
  }
  const std::string text = header.dump();
  std::string data;
  std::normal_distribution<float> normal(0, 1.0f / std::sqrt(static_cast<float>(model.hidden)));
  for (const NamedShape& tensor : tensors) {
    for (uint64_t i = 0; i < tensor.count() && !model.sparse; ++i) {
      const bool spoiled = tensor.name == model.spoiled_tensor && i == model.spoiled_index;
      data += Encoded(model.dtype, spoiled ? model.spoiled_value : normal(*random));
    }
  }
  WriteTestFile(path, SafetensorsBytes(text, data));
  if (model.sparse) std::filesystem::resize_file(path, 8 + text.size() + size);
}

}  // namespace

void LlamaDirectory::Write(const std::string& directory) const {
  std::filesystem::create_directories(directory);
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"model_type", "llama"},
                       {"vocab_size", vocab},
                       {"hidden_size", hidden},
                       {"num_hidden_layers", layers},
                       {"num_attention_heads", heads},
                       {"num_key_value_heads", kv_heads},
                       {"intermediate_size", ffn},
                       {"hidden_act", "silu"},
                       {"max_position_embeddings", 128},
                       {"rms_norm_eps", 1e-5},
                       {"rope_theta", 10000.0},
                       {"tie_word_embeddings", false}};
  WriteTestFile(directory + "/config.json", config.dump());
  for (const char* name : {"/tokenizer.json", "/tokenizer_config.json"}) {
    WriteTestFile(directory + name, ReadTestFile(GoldenCheckpoint("gqa") + name));
  }
  const std::vector<NamedShape> tensors = TensorsOf(*this);
  std::mt19937 random(seed);
  if (shards == 1) return WriteShard(*this, tensors, directory + "/model.safetensors", &random);
  Json weight_map;
  for (int shard = 0; shard < shards; ++shard) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
    std::vector<NamedShape> own;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto target = static_cast<int>(i * static_cast<size_t>(shards) / tensors.size());
      if (target != shard) continue;
      own.push_back(tensors[i]);
      weight_map[tensors[i].name] = name;
    }
    WriteShard(*this, own, directory + "/" + name, &random);
  }
  WriteTestFile(directory + "/model.safetensors.index.json",
                Json{{"weight_map", weight_map}}.dump());
}

}  // namespace sluice::testing
