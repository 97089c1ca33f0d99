// Decoding of source rows against the gguf package (tests/golden/make_block_golden.py).
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/mapped_file.h"
#include "loaders/checkpoint.h"

namespace sluice {
namespace {

std::vector<std::byte> FromHex(const std::string& hex) {
  std::vector<std::byte> bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

SourceType TypeOfName(const std::string& name) {
  for (const SourceType type : {SourceType::kF32, SourceType::kF16, SourceType::kBF16,
                                SourceType::kQ8_0, SourceType::kQ4_0, SourceType::kQ4_1}) {
    if (name == SourceTypeName(type)) return type;
  }
  ADD_FAILURE() << "golden of an unknown type " << name;
  return SourceType::kF32;
}

TEST(DecodeSourceRow, EqualsTheGgufPackageToTheBit) {
  Result<std::string> text =
      ReadWholeFile(SLUICE_TEST_DATA_DIR "/golden/blocks.json", uint64_t{1} << 20);
  ASSERT_TRUE(text.ok()) << text.status().message();
  const nlohmann::json goldens = nlohmann::json::parse(*text);
  EXPECT_EQ(goldens.size(), 5u);
  for (const nlohmann::json& golden : goldens) {
    const auto name = golden["type"].get<std::string>();
    const SourceType type = TypeOfName(name);
    const std::vector<std::byte> row = FromHex(golden["bytes"]);
    const auto want = golden["value_bits"].get<std::vector<uint32_t>>();
    ASSERT_EQ(SourceRowBytes(type, want.size()), row.size()) << name;
    std::vector<float> out(want.size());
    DecodeSourceRow(type, row.data(), want.size(), out.data());
    size_t nan_count = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      // NaN has many bit patterns, and which one arithmetic gives is the processor's affair.
      if (std::isnan(std::bit_cast<float>(want[i]))) {
        ++nan_count;
        EXPECT_TRUE(std::isnan(out[i])) << name << " " << i;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(out[i]), want[i]) << name << " " << i;
      }
    }
    EXPECT_GT(nan_count, 0u) << name;
    EXPECT_LT(nan_count, want.size() / 2) << name;
  }
}

TEST(DecodeSourceRow, CopiesF32) {
  const float values[] = {1.5f, -0.0f, INFINITY, 1e-45f};
  float out[4] = {};
  DecodeSourceRow(SourceType::kF32, reinterpret_cast<const std::byte*>(values), 4, out);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(values[i]));
  }
}

}  // namespace
}  // namespace sluice
