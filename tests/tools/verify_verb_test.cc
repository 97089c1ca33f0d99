// `sluice verify` and `inspect`: what they say of files, good and bad.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "formats/sluice_writer.h"
#include "tests/support/json_output.h"
#include "tests/support/llama_directory.h"
#include "tests/support/program.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(Verify, GoodFile) {
  const ProgramResult result = RunSluice({"verify", GoldenModel()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("agree"));
}

TEST(Verify, ChecksCheckpointsOfEveryContainer) {
  for (const std::string& good :
       {GoldenCheckpoint("mha"), GoldenCheckpoint("sharded"), GoldenCheckpoint("gguf/q4_0.gguf")}) {
    const ProgramResult result = RunSluice({"verify", good});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("no checksums"));
  }
  const ScratchDirectory scratch;
  const std::string directory = scratch / "bad";
  testing::LlamaDirectory model;
  model.spoiled_tensor = "model.layers.1.mlp.up_proj.weight";
  model.spoiled_index = 3 * 64 + 5;
  model.spoiled_value = std::numeric_limits<float>::infinity();
  model.Write(directory);
  const ProgramResult infinite = RunSluice({"verify", directory});
  ExpectFailure(infinite, 1, "corrupt");
  EXPECT_THAT(infinite.err, HasSubstr("1 of 21 tensors are wrong"));
  EXPECT_THAT(infinite.out, HasSubstr("model.layers.1.mlp.up_proj.weight: row 3, column 5 is inf"));
  const std::string cut = scratch / "cut.gguf";
  const std::string bytes = ReadTestFile(GoldenCheckpoint("gguf/q4_0.gguf"));
  WriteTestFile(cut, bytes.substr(0, bytes.size() - 100));
  EXPECT_EQ(RunSluice({"verify", cut}).exit_code, 1);
  std::filesystem::remove(directory + "/tokenizer.json");
  ExpectFailure(RunSluice({"verify", directory}), 1, "not found");
}

TEST(Verify, NamesTensorAndOffsetOfEveryBadPiece) {
  const ScratchDirectory scratch;
  const Json catalogue = Parsed(RunSluice({"inspect", GoldenModel(), "--json"}));
  std::string bytes = ReadTestFile(GoldenModel());
  std::vector<std::string> names;
  for (size_t i : {size_t{0}, catalogue["tensors"].size() - 1}) {
    const Json& tensor = catalogue["tensors"][i];
    bytes[tensor["offset_bytes"].get<size_t>() + 1] ^= 0x10;
    names.push_back(tensor["name"]);
  }
  WriteTestFile(scratch / "bad.sluice", bytes);
  const ProgramResult result = RunSluice({"verify", scratch / "bad.sluice"});
  ExpectFailure(result, 1, "corrupt");
  for (const std::string& name : names) EXPECT_THAT(result.out, HasSubstr(name));
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 2) << result.out;
  EXPECT_THAT(result.err, HasSubstr("2 of"));
}

// A tensor of one tile of 4.3 MiB, which is one piece.
void WriteFileOfFiveChunks(const std::string& path) {
  SluiceContents contents;
  contents.config.architecture = "llama";
  contents.config.vocab_size = 20;
  contents.config.hidden_size = contents.config.intermediate_size = 40;
  contents.config.num_layers = 1;
  contents.config.num_heads = contents.config.num_kv_heads = 2;
  contents.config.head_dim = contents.config.rope.dim = 20;
  contents.config.context_length = 64;
  PlannedGroup group;
  group.tensors.push_back(
      {"wide", {WeightKind::kF32, WeightOffset::kNone, 0}, kTileRows, 16, 70000});
  contents.groups.push_back(group);
  Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(path, contents);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  ASSERT_EQ((*writer)->pieces().size(), 1u);
  const std::vector<std::byte> tiles((*writer)->LayoutOf(0).size_bytes, std::byte{7});
  ASSERT_TRUE((*writer)->WritePiece(0, tiles).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
}

TEST(Verify, NamesEveryBadChunkOfAPiece) {
  const ScratchDirectory scratch;
  const std::string path = scratch / "wide.sluice";
  WriteFileOfFiveChunks(path);
  EXPECT_THAT(RunSluice({"verify", path}).out, HasSubstr("5 chunks agree"));
  std::string bytes = ReadTestFile(path);
  const size_t begin = 4096, chunk = 1 << 20;
  bytes[begin + chunk] ^= 1;          // the first byte of the second chunk
  bytes[begin + 4 * chunk - 1] ^= 1;  // the last byte of the fourth
  bytes.back() ^= 1;                  // of the fifth
  WriteTestFile(path, bytes);
  const ProgramResult result = RunSluice({"verify", path});
  ExpectFailure(result, 1, "corrupt");
  EXPECT_THAT(result.err, HasSubstr("3 of 5 chunks"));
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 3) << result.out;
  for (const size_t wrong : {1, 3, 4}) {
    EXPECT_THAT(result.out, HasSubstr("tensor 'wide'"));
    EXPECT_THAT(result.out, HasSubstr("at offset " + std::to_string(begin + wrong * chunk) + " "));
  }
}

TEST(Inspect, EveryContainer) {
  for (const std::string& path :
       {GoldenModel(), GoldenCheckpoint("gqa"), GoldenCheckpoint("gqa") + "/model.safetensors",
        std::string(SLUICE_TEST_DATA_DIR) + "/golden/gguf/q4_0.gguf"}) {
    SCOPED_TRACE(path);
    const Json json = Parsed(RunSluice({"inspect", path, "--json"}));
    ASSERT_FALSE(json["tensors"].empty());
    const std::string name = json["tensors"][0]["name"];
    EXPECT_THAT(RunSluice({"inspect", path, "--tensors"}).out, HasSubstr("\n" + name + " "));
    EXPECT_THAT(RunSluice({"inspect", path}).out, StartsWith("container: "));
  }
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "text", "hello");
  ExpectFailure(RunSluice({"inspect", scratch / "text"}), 1, "corrupt");
}

}  // namespace
}  // namespace sluice
