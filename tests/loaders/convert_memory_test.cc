// What the converter makes of a source within any bound of memory, with any number of threads, and
// of values that are none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "formats/sluice_file.h"
#include "loaders/architecture.h"
#include "loaders/checkpoint.h"
#include "loaders/convert.h"
#include "loaders/convert_pipeline.h"
#include "loaders/quantizer.h"
#include "loaders/weight_plan.h"
#include "tests/support/conversion.h"
#include "tests/support/faulty_files.h"
#include "tests/support/llama_directory.h"
#include "tests/support/program.h"
#include "tests/support/sanitized.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using testing::Convert;
using testing::FaultyFiles;
using testing::FilesIn;
using ::testing::HasSubstr;
using testing::LlamaDirectory;

// Two pieces in one tensor, several chunks in a piece, several slices: 20 MiB for the embedding.
LlamaDirectory WideModel() {
  LlamaDirectory model;
  model.vocab = 40'000;
  model.hidden = 128;
  model.layers = 1;
  return model;
}

ConvertOptions Keeping() {
  ConvertOptions options;
  options.quantization.mode = QuantizationPlan::Mode::kKeep;
  return options;
}

TEST(Convert, BytesDoNotDependOnThreadsOrMemory) {
  const ScratchDirectory scratch;
  WideModel().Write(scratch / "source");
  for (const auto mode : {QuantizationPlan::Mode::kKeep, QuantizationPlan::Mode::kMixed}) {
    ConvertOptions options;
    options.quantization.mode = mode;
    options.threads = 1;
    ASSERT_TRUE(Convert(scratch / "one.sluice", options, scratch / "source").ok());
    const std::string one = ReadTestFile(scratch / "one.sluice");
    for (const int threads : {2, 3, 16}) {
      for (const uint64_t mebibytes : {48, 64, 1024}) {
        if (test::kSanitized && mebibytes != (threads == 16 ? 48 : 64)) continue;
        options.threads = threads;
        options.max_ram_bytes = mebibytes << 20;
        const Status status = Convert(scratch / "many.sluice", options, scratch / "source");
        ASSERT_TRUE(status.ok()) << status.message();
        EXPECT_TRUE(ReadTestFile(scratch / "many.sluice") == one) << threads << " " << mebibytes;
      }
    }
  }
}

TEST(Convert, ADamagedChunkOfALongPieceIsMadeAnew) {
  const ScratchDirectory scratch;
  WideModel().Write(scratch / "source");
  ConvertOptions options = Keeping();
  ASSERT_TRUE(Convert(scratch / "whole.sluice", options, scratch / "source").ok());
  const std::string expected = ReadTestFile(scratch / "whole.sluice");
  uint64_t done = 0;
  options.progress = [&](const ConvertProgress& progress) {
    done = progress.done_bytes;
    return done < progress.total_bytes * 3 / 4;
  };
  ASSERT_FALSE(Convert(scratch / "out.sluice", options, scratch / "source").ok());
  std::string partial = ReadTestFile(scratch / "out.sluice.partial");
  ASSERT_EQ(partial.size(), expected.size());
  partial[5'000'000] ^= 1;
  WriteTestFile(scratch / "out.sluice.partial", partial);
  options.progress = nullptr;
  options.resume = true;
  ASSERT_TRUE(Convert(scratch / "out.sluice", options, scratch / "source").ok());
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == expected);
}

TEST(Convert, BuffersStayWithinTheBoundForEveryBound) {
  const ScratchDirectory scratch;
  WideModel().Write(scratch / "source");
  ConvertOptions options = Keeping();
  Result<Checkpoint> checkpoint = Checkpoint::Open(scratch / "source");
  ASSERT_TRUE(checkpoint.ok());
  Result<ModelDescription> description = DescribeModel(checkpoint->config());
  ASSERT_TRUE(description.ok());
  SluiceContents contents;
  contents.config = checkpoint->config();
  contents.groups = PlanWeights(*description, options.quantization, [&](const std::string& name) {
    return TypeThatKeeps(*checkpoint->Find(name));
  });
  auto writer = SluiceWriter::Create(scratch / "plan.sluice", contents);
  ASSERT_TRUE(writer.ok());
  uint64_t refused = 0, planned = 0;
  for (const int threads : {1, 2, 64}) {
    options.threads = threads;
    for (uint64_t mebibytes = 1; mebibytes <= 2048; mebibytes += mebibytes < 64 ? 1 : 61) {
      options.max_ram_bytes = mebibytes << 20;
      const Result<ConvertBuffers> buffers = PlanConvertBuffers(*checkpoint, **writer, options);
      if (!buffers.ok()) {
        ++refused;
        EXPECT_EQ(buffers.status().code(), ErrorCode::kDoesNotFit);
        EXPECT_THAT(buffers.status().message(), HasSubstr(std::to_string(options.max_ram_bytes)));
        EXPECT_LT(mebibytes, 48u);
        continue;
      }
      ++planned;
      EXPECT_LE(buffers->total_bytes, options.max_ram_bytes);
      EXPECT_LE(static_cast<uint64_t>(buffers->slices) * buffers->slice_bytes +
                    static_cast<uint64_t>(buffers->pieces) * buffers->piece_bytes,
                buffers->total_bytes);
      EXPECT_GE(std::min({buffers->workers, buffers->slices, buffers->pieces}), 1);
    }
  }
  EXPECT_GT(refused, 30u);
  EXPECT_GT(planned, 90u);
}

TEST(Convert, TooLittleMemoryIsRefusedAndLeavesNothing) {
  const ScratchDirectory scratch;
  ConvertOptions options;
  options.max_ram_bytes = 1'000'000;
  const Status status = Convert(scratch / "out.sluice", options);
  EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit);
  EXPECT_THAT(status.message(), HasSubstr("--max-ram allows 1000000"));
  EXPECT_TRUE(FilesIn(scratch).empty());
}

TEST(Convert, ATokenizerThatTakesMoreMemoryThanAllowedIsRefused) {
  const ScratchDirectory scratch;
  ConvertOptions options;
  options.max_ram_bytes = 30'000;
  const Status status = Convert(scratch / "out.sluice", options);
  EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("tokenizer.json"), HasSubstr("are allowed by --max-ram")));
  EXPECT_TRUE(FilesIn(scratch).empty());
}

TEST(Convert, AValueThatIsNoNumberIsRefusedByNameAndLeavesNothing) {
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    const ScratchDirectory scratch;
    LlamaDirectory model;
    model.dtype = dtype;
    model.spoiled_tensor = "model.layers.1.mlp.down_proj.weight";
    model.spoiled_index = 5 * 96 + 70;
    model.spoiled_value = NAN;
    model.Write(scratch / "source");
    const Status status = Convert(scratch / "out.sluice", ConvertOptions(), scratch / "source");
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr(scratch / "source"), HasSubstr(model.spoiled_tensor),
                      HasSubstr("row 5:"), HasSubstr("column 70 ")));
    EXPECT_EQ(FilesIn(scratch), std::set<std::string>{"source"});
  }
}

// In norms, which are kept, and where everything is.
TEST(Convert, AKeptValueThatIsNoNumberIsRefusedByNameAndLeavesNothing) {
  struct Case {
    const char *tensor, *quantization;
    float value;
  };
  for (const Case& c : {Case{"model.layers.0.input_layernorm.weight", "auto", INFINITY},
                        Case{"model.norm.weight", "int8", NAN},
                        Case{"model.layers.1.mlp.up_proj.weight", "keep", -INFINITY}}) {
    for (const char* dtype : {"F32", "F16", "BF16"}) {
      const ScratchDirectory scratch;
      LlamaDirectory model;
      model.dtype = dtype;
      model.spoiled_tensor = c.tensor;
      model.spoiled_index = 33;
      model.spoiled_value = c.value;
      model.Write(scratch / "source");
      ConvertOptions options;
      options.quantization = *ParseQuantization(c.quantization);
      const Status status = Convert(scratch / "out.sluice", options, scratch / "source");
      EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
      EXPECT_THAT(status.message(),
                  AllOf(HasSubstr(c.tensor), HasSubstr("row 0:"), HasSubstr("column 33 ")));
      EXPECT_EQ(FilesIn(scratch), std::set<std::string>{"source"});
    }
  }
}

TEST(Convert, GroupsShrinkWhereTheyDoNotDivideTheRow) {
  const ScratchDirectory scratch;
  LlamaDirectory model;
  model.hidden = 192;  // 128 does not divide it, 64 does
  model.ffn = 256;
  model.Write(scratch / "source");
  ASSERT_TRUE(Convert(scratch / "out.sluice", ConvertOptions(), scratch / "source").ok());
  Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(scratch / "out.sluice");
  ASSERT_TRUE(file.ok());
  const auto type_of = [&](const std::string& name) {
    for (const TensorEntry& tensor : (*file)->tensors()) {
      if (tensor.name == name) return WeightTypeName(tensor.layout.type);
    }
    return "no tensor " + name;
  };
  EXPECT_EQ(type_of("layers.0.attn.q.weight"), "int4:g64:zero");
  EXPECT_EQ(type_of("layers.0.ffn.down.weight"), "int4:g128:zero");
  EXPECT_EQ(type_of("head.weight"), "int8:g32");
}

TEST(Convert, SeventyBillionWeightsInThirtyShardsBeginAtOnce) {
  const ScratchDirectory scratch;
  LlamaDirectory model;
  model.vocab = 128'256;
  model.hidden = 8'192;
  model.layers = 80;
  model.heads = 64;
  model.kv_heads = 8;
  model.ffn = 28'672;
  model.shards = 30;
  model.dtype = "F16";
  model.sparse = true;
  model.Write(scratch / "source");
  FaultyFiles files;
  files.LimitSpace(uint64_t{1} << 30);  // the disk does not reserve
  ConvertOptions options;
  options.files = &files;
  options.threads = 2;
  uint64_t total = 0;
  int calls = 0;
  options.progress = [&](const ConvertProgress& progress) {
    total = progress.total_bytes;
    return ++calls < 3;
  };
  const Status status = Convert(scratch / "out.sluice", options, scratch / "source");
  EXPECT_EQ(status.code(), ErrorCode::kCancelled) << status.message();
  EXPECT_EQ(total / 1'000'000'000, 141u);  // 70.55e9 weights of two bytes
  files.SayFree(20'000'000'000);
  EXPECT_THAT(Convert(scratch / "other.sluice", options, scratch / "source").message(),
              HasSubstr("bytes of disk, 20000000000 are free"));
}

}  // namespace
}  // namespace sluice
