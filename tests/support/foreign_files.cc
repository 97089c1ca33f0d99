#include "tests/support/foreign_files.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "formats/checked.h"

namespace sluice {

std::string GgufBytes::String(std::string_view text) {
  return LittleEndian<uint64_t>(text.size()) + std::string(text);
}

GgufBytes& GgufBytes::Add(std::string_view key, uint32_t type, const std::string& value) {
  entries.push_back(String(key) + LittleEndian(type) + value);
  ++key_count;
  return *this;
}

GgufBytes& GgufBytes::AddU32(std::string_view key, uint32_t value) {
  return Add(key, 4, LittleEndian(value));
}

GgufBytes& GgufBytes::AddF32(std::string_view key, float value) {
  return Add(key, 6, LittleEndian(value));
}

GgufBytes& GgufBytes::AddString(std::string_view key, std::string_view value) {
  return Add(key, 8, String(value));
}

GgufBytes& GgufBytes::AddTensor(GgufTensorBytes tensor) {
  tensors.push_back(std::move(tensor));
  return *this;
}

GgufBytes& GgufBytes::AddF32Tensor(std::string_view name, std::vector<uint64_t> dims) {
  uint64_t count = 1;
  for (const uint64_t dim : dims) count *= dim;
  return AddTensor({std::string(name), std::move(dims), 0, std::string(count * 4, '\0')});
}

GgufBytes& GgufBytes::Remove(std::string_view key) {
  const auto entry = std::find_if(entries.begin(), entries.end(),
                                  [key](const auto& e) { return e.starts_with(String(key)); });
  if (entry == entries.end()) std::abort();
  entries.erase(entry);
  --key_count;
  return *this;
}

GgufTensorBytes& GgufBytes::Tensor(std::string_view name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [name](const auto& tensor) { return tensor.name == name; });
  if (found == tensors.end()) std::abort();
  return *found;
}

GgufBytes& GgufBytes::RemoveTensor(std::string_view name) {
  tensors.erase(tensors.begin() + (&Tensor(name) - tensors.data()));
  return *this;
}

std::string GgufBytes::Header() const {
  std::string out = magic + LittleEndian(version) + LittleEndian<uint64_t>(tensors.size()) +
                    LittleEndian(key_count);
  for (const std::string& entry : entries) out += entry;
  uint64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const GgufTensorBytes& tensor = tensors[i];
    out += String(tensor.name) + LittleEndian(static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) out += LittleEndian(dim);
    out += LittleEndian(tensor.type) + LittleEndian(offsets.empty() ? offset : offsets[i]);
    offset = RoundUp(offset + tensor.data.size(), alignment);
  }
  return out;
}

std::string GgufBytes::Build() const {
  std::string out = Header();
  for (const GgufTensorBytes& tensor : tensors) {
    out.resize(RoundUp(out.size(), alignment), '\0');
    out += tensor.data;
  }
  return out;
}

GgufBytes& GgufBytes::AddStrings(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = LittleEndian<uint32_t>(8) + LittleEndian<uint64_t>(values.size());
  for (const std::string& value : values) bytes += String(value);
  return Add(key, 9, bytes);
}

GgufBytes TinyLlamaGguf() {
  GgufBytes file;
  file.AddString("tokenizer.ggml.model", "gpt2")
      .AddString("tokenizer.ggml.pre", "llama-bpe")
      .AddStrings("tokenizer.ggml.tokens", {"a", "b", "c", "d", "ab", "cd", "abcd", "!"})
      .AddStrings("tokenizer.ggml.merges", {"a b", "c d", "ab cd"})
      .AddU32("tokenizer.ggml.eos_token_id", 7);
  file.AddString("general.architecture", "llama")
      .AddU32("llama.block_count", 1)
      .AddU32("llama.context_length", 64)
      .AddU32("llama.embedding_length", 32)
      .AddU32("llama.feed_forward_length", 64)
      .AddU32("llama.attention.head_count", 2)
      .AddU32("llama.attention.head_count_kv", 1)
      .AddF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.AddF32Tensor("token_embd.weight", {32, 8})
      .AddF32Tensor("blk.0.attn_norm.weight", {32})
      .AddF32Tensor("blk.0.attn_q.weight", {32, 32})
      .AddF32Tensor("blk.0.attn_k.weight", {32, 16})
      .AddF32Tensor("blk.0.attn_v.weight", {32, 16})
      .AddF32Tensor("blk.0.attn_output.weight", {32, 32})
      .AddF32Tensor("blk.0.ffn_norm.weight", {32})
      .AddF32Tensor("blk.0.ffn_gate.weight", {32, 64})
      .AddF32Tensor("blk.0.ffn_up.weight", {32, 64})
      .AddF32Tensor("blk.0.ffn_down.weight", {64, 32})
      .AddF32Tensor("output_norm.weight", {32});
  return file;
}

}  // namespace sluice
