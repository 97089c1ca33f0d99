// A copy of a golden checkpoint in the Hugging Face form that a test may change.
#ifndef SLUICE_TESTS_SUPPORT_CHECKPOINT_COPY_H_
#define SLUICE_TESTS_SUPPORT_CHECKPOINT_COPY_H_

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "formats/mapped_file.h"
#include "loaders/checkpoint.h"
#include "tests/support/foreign_files.h"
#include "tests/support/scratch_directory.h"

namespace sluice {

class CheckpointCopy {
 public:
  // Of tests/golden/NAME.
  explicit CheckpointCopy(const std::string& name) {
    const std::string golden = SLUICE_TEST_DATA_DIR "/golden/" + name;
    for (const auto& entry : std::filesystem::directory_iterator(golden)) {
      std::filesystem::copy(entry.path(), scratch_.path());
    }
  }
  const std::string& path() const { return scratch_.path(); }
  void Write(const std::string& name, std::string_view bytes) { scratch_.Write(name, bytes); }
  void Remove(const std::string& name) { std::filesystem::remove(path() + "/" + name); }
  std::string Read(const std::string& name) { return *ReadWholeFile(path() + "/" + name, 1 << 24); }
  // Changes a JSON file.
  template <typename Change>
  void Edit(const std::string& name, Change change) {
    nlohmann::json json = nlohmann::json::parse(Read(name));
    change(json);
    Write(name, json.dump());
  }
  // Changes the header of model.safetensors (change(header, bytes of data)), and appends to its
  // data.
  template <typename Change>
  void EditHeader(Change change, const std::string& more_data = "") {
    const std::string bytes = Read("model.safetensors");
    const uint64_t length = HeaderBytes(bytes);
    nlohmann::json header = nlohmann::json::parse(bytes.substr(8, length));
    const std::string data = bytes.substr(8 + length);
    change(header, data.size());
    Write("model.safetensors", SafetensorsBytes(header.dump(), data + more_data));
  }
  // The bytes of a tensor of model.safetensors.
  std::string Data(const std::string& tensor) {
    const std::string bytes = Read("model.safetensors");
    const uint64_t length = HeaderBytes(bytes);
    const nlohmann::json header = nlohmann::json::parse(bytes.substr(8, length));
    const auto offsets = header[tensor]["data_offsets"].get<std::vector<uint64_t>>();
    return bytes.substr(8 + length + offsets[0], offsets[1] - offsets[0]);
  }
  Status Open() { return Checkpoint::Open(path()).status(); }
  Result<Checkpoint> OpenCheckpoint() { return Checkpoint::Open(path()); }

 private:
  static uint64_t HeaderBytes(const std::string& bytes) {
    uint64_t length;
    std::memcpy(&length, bytes.data(), sizeof length);
    return length;
  }

  ScratchDirectory scratch_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_CHECKPOINT_COPY_H_
