#include "loaders/other_layouts.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/";
constexpr uint64_t kMaxLfsPointerBytes = 1024;

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The first name with one of the endings, those of a model before others (states of a training);
// "": there is none.
std::string FirstWith(const std::vector<std::string>& names,
                      std::initializer_list<std::string_view> endings) {
  std::string first;
  for (const std::string& name : names) {
    for (const std::string_view ending : endings) {
      if (!name.ends_with(ending)) continue;
      if (name.find("model") != std::string::npos) return name;
      if (first.empty()) first = name;
    }
  }
  return first;
}

Status RefuseGgufIn(const std::string& directory, const std::vector<std::string>& names) {
  const std::string gguf = FirstWith(names, {".gguf"});
  if (gguf.empty()) return {};
  return {
      ErrorCode::kUnsupported,
      directory + ": a directory of GGUF files; name one of them, as " + directory + "/" + gguf};
}

Status RefuseOtherWeights(const std::string& directory, const std::vector<std::string>& names) {
  if (const std::string pickle =
          FirstWith(names, {".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"});
      !pickle.empty()) {
    return {ErrorCode::kUnsupported,
            directory + "/" + pickle +
                ": pickle files can run code when they are read, so only safetensors are; convert "
                "with save_pretrained"};
  }
  if (const std::string other = FirstWith(names, {".h5", ".msgpack", ".onnx"}); !other.empty()) {
    return {ErrorCode::kUnsupported, directory + "/" + other +
                                         ": weights of TensorFlow, Flax or ONNX; only safetensors "
                                         "and GGUF are read"};
  }
  return {};
}

}  // namespace

Status RefuseGitLfsPointer(const ByteSource& file) {
  std::array<char, kLfsPointer.size()> begin;
  if (file.size_bytes() < begin.size() || file.size_bytes() > kMaxLfsPointerBytes) return {};
  if (!file.ReadAt(0, std::as_writable_bytes(std::span(begin))).ok()) return {};
  if (std::string_view(begin.data(), begin.size()) != kLfsPointer) return {};
  return {ErrorCode::kNotFound,
          file.name() + ": a pointer of Git LFS, not the file itself; 'git lfs pull' fetches it"};
}

Status NoConfiguration(const std::string& directory) {
  const std::vector<std::string> names = NamesIn(directory);
  if (Status s = RefuseGgufIn(directory, names); !s.ok()) return s;
  const auto has = [&names](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (has("adapter_config.json")) {
    return {ErrorCode::kUnsupported,
            directory +
                "/adapter_config.json: an adapter, not a model; merge it into its base model "
                "(merge_and_unload of peft) and save that"};
  }
  if (has("params.json")) {
    return {ErrorCode::kUnsupported,
            directory +
                "/params.json: a checkpoint in its authors' own layout; the one of transformers, "
                "with config.json, is read"};
  }
  return {ErrorCode::kNotFound, directory + "/config.json is not there"};
}

Status NoWeights(const std::string& directory) {
  const std::vector<std::string> names = NamesIn(directory);
  std::string message =
      directory + ": neither model.safetensors nor model.safetensors.index.json is there";
  if (const std::string other = FirstWith(names, {".safetensors"}); !other.empty()) {
    return {ErrorCode::kNotFound, message + ", only files like " + other};
  }
  if (Status s = RefuseOtherWeights(directory, names); !s.ok()) return s;
  if (Status s = RefuseGgufIn(directory, names); !s.ok()) return s;
  return {ErrorCode::kNotFound, std::move(message)};
}

}  // namespace sluice
