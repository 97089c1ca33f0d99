#include "tests/support/golden_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "formats/npy.h"
#include "loaders/convert.h"

namespace sluice::testing {
namespace {

std::string GoldenFolder() { return std::string(SLUICE_TEST_DATA_DIR) + "/golden/"; }

NpyArray Read(const std::string& path) {
  Result<NpyArray> array = ReadNpy(path);
  if (!array.ok()) throw std::runtime_error(array.status().message());
  return std::move(*array);
}

std::vector<std::vector<int32_t>> ReadTokens(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::vector<int32_t>> sequences;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    sequences.emplace_back();
    for (int32_t id; words >> id;) sequences.back().push_back(id);
  }
  if (sequences.empty()) throw std::runtime_error(path + " has no tokens");
  return sequences;
}

}  // namespace

std::span<const float> GoldenModel::ExpectedLogits(int64_t sequence, int64_t position) const {
  const auto found = std::find(positions.begin(), positions.end(), position);
  if (found == positions.end()) return {};
  const auto row = sequence * static_cast<int64_t>(positions.size()) + (found - positions.begin());
  return std::span(logits).subspan(static_cast<size_t>(row * vocab), static_cast<size_t>(vocab));
}

std::vector<std::string> HuggingFaceGoldens() {
  return {"mha",    "gqa",        "mqa",  "bias_linear", "head_dim",
          "llama3", "llama3_old", "yarn", "yarn_given",  "sharded"};
}

std::vector<std::string> GgufGoldens() {
  return {"gguf/f32",  "gguf/f16",  "gguf/bf16",   "gguf/q8_0",
          "gguf/q4_0", "gguf/q4_1", "gguf/kquants"};
}

std::vector<std::string> ArchitectureGoldens() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenFolder() + "architectures")) {
    if (entry.is_directory()) names.push_back("architectures/" + entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> ArchitectureGgufGoldens() {
  std::vector<std::string> names;
  for (const std::string& name : ArchitectureGoldens()) {
    const std::string file = name + "/model.gguf";
    if (std::filesystem::exists(GoldenFolder() + file)) names.push_back(file);
  }
  return names;
}

GoldenModel LoadGolden(const std::string& name) {
  GoldenModel model;
  model.name = name;
  const bool gguf = name.starts_with("gguf/");
  const std::string path = GoldenFolder() + name;
  // A GGUF of an architecture stands beside the checkpoint that it was made from, and gives the
  // same results, unless it lacks a part of the configuration.
  const bool converted = name.ends_with("/model.gguf");
  std::string prefix = gguf ? path + "." : path + "/";
  if (converted) {
    prefix = path.substr(0, path.size() - std::string_view("model.gguf").size());
    if (std::filesystem::exists(prefix + "gguf.tokens.txt")) prefix += "gguf.";
  }
  model.source_path = gguf ? path + ".gguf" : path;
  model.tokens = ReadTokens(prefix + "tokens.txt");
  model.positions = Read(prefix + "expected_positions.npy").ints;
  NpyArray logits = Read(prefix + "expected_logits.npy");
  model.vocab = static_cast<int64_t>(logits.shape.at(2));
  model.logits = std::move(logits.floats);
  model.argmax = Read(prefix + "expected_argmax.npy").ints;
  model.logsumexp = Read(prefix + "expected_logsumexp.npy").floats;
  if (!gguf && !converted) {
    std::ifstream file(prefix + "expected_greedy.json");
    const nlohmann::json json = nlohmann::json::parse(file);
    for (const auto& prompt : json.at("prompts")) {
      model.greedy.push_back({prompt.at("prompt_ids"), prompt.at("next_ids")});
    }
  }
  return model;
}

std::string ConvertGolden(const GoldenModel& model, const std::string& quantization,
                          const std::string& output_path) {
  ConvertOptions options;
  Result<QuantizationPlan> plan = ParseQuantization(quantization);
  if (!plan.ok()) throw std::runtime_error(plan.status().message());
  options.quantization = *plan;
  Result<ConvertReport> report = ConvertCheckpoint(model.source_path, output_path, options);
  if (!report.ok()) throw std::runtime_error(report.status().message());
  return output_path;
}

}  // namespace sluice::testing
