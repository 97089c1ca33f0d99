// How people's checkpoints lie on disk: heads that are tied or not, templates in all their places,
// and what is taken for a checkpoint and is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/half.h"
#include "loaders/chat_template/chat_template.h"
#include "loaders/chat_template/chat_template_input.h"
#include "loaders/checkpoint.h"
#include "loaders/checkpoint_template.h"
#include "tests/support/checkpoint_copy.h"
#include "tests/support/foreign_files.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kHead[] = "lm_head.weight";

void ExpectRefused(const Status& status, ErrorCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr(part));
}

std::vector<float> ValuesOf(const Checkpoint& checkpoint, const std::string& name) {
  const SourceTensor* tensor = checkpoint.Find(name);
  if (tensor == nullptr) return {};
  std::vector<std::byte> rows(tensor->rows * SourceRowBytes(tensor->type, tensor->cols));
  EXPECT_TRUE(checkpoint.ReadRows(*tensor, 0, tensor->rows, rows).ok());
  std::vector<float> values(tensor->rows * tensor->cols);
  DecodeSourceRow(tensor->type, rows.data(), values.size(), values.data());
  return values;
}

// A tied checkpoint (bf16) that also stores a head: these bytes of that type.
class WithHead : public CheckpointCopy {
 public:
  WithHead(const char* dtype, const std::string& data, bool tied = true) : CheckpointCopy("gqa") {
    EditHeader(
        [&](Json& header, size_t end) {
          header[kHead] = {{"dtype", dtype},
                           {"shape", header[kEmbedding]["shape"]},
                           {"data_offsets", {end, end + data.size()}}};
        },
        data);
    Edit("config.json", [tied](Json& config) { config["tie_word_embeddings"] = tied; });
  }
};

TEST(TiedHead, StoredASecondTimeIsStillTied) {
  const std::string embedding = CheckpointCopy("gqa").Data(kEmbedding);
  Result<Checkpoint> checkpoint = WithHead("BF16", embedding).OpenCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_TRUE(checkpoint->config().tie_embeddings);
  EXPECT_EQ(checkpoint->Find("head.weight"), nullptr);
  // The same numbers in another type, and zeros of another sign.
  std::string wide;
  for (size_t i = 0; i < embedding.size(); i += 2) {
    uint16_t bits;
    std::memcpy(&bits, embedding.data() + i, 2);
    wide += LittleEndian(Bf16ToFloat(bits));
  }
  checkpoint = WithHead("F32", wide).OpenCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_TRUE(checkpoint->config().tie_embeddings);
}

// As transformers 5: the configuration is wrong then, as in Mistral Small 3.1.
TEST(TiedHead, ThatDiffersInOneValueIsAHeadOfItsOwn) {
  std::string head = CheckpointCopy("gqa").Data(kEmbedding);
  head[head.size() - 2] ^= 1;  // the last value's last bit
  Result<Checkpoint> checkpoint = WithHead("BF16", head).OpenCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_FALSE(checkpoint->config().tie_embeddings);
  std::vector<float> embedding = ValuesOf(*checkpoint, "embed.weight");
  const std::vector<float> values = ValuesOf(*checkpoint, "head.weight");
  ASSERT_EQ(values.size(), embedding.size());
  EXPECT_NE(values.back(), embedding.back());
  embedding.back() = values.back();
  EXPECT_EQ(values, embedding);
}

TEST(TiedHead, OfAnotherShapeOrTypeIsRefusedByName) {
  const std::string data = CheckpointCopy("gqa").Data(kEmbedding);
  WithHead shape("BF16", data);
  shape.EditHeader([](Json& header, size_t) {
    const auto dims = header[kHead]["shape"].get<std::vector<uint64_t>>();
    header[kHead]["shape"] = {dims[1], dims[0]};
  });
  ExpectRefused(shape.Open(), ErrorCode::kCorrupt, "'lm_head.weight': shape");
  ExpectRefused(WithHead("I16", data).Open(), ErrorCode::kUnsupported,
                "'lm_head.weight': type I16");
}

// Programs that write shared tensors once keep the name that comes first.
TEST(TiedHead, StoredUnderTheHeadsNameAloneIsTheEmbedding) {
  CheckpointCopy copy("gqa");
  const std::vector<float> want = ValuesOf(*copy.OpenCheckpoint(), "embed.weight");
  copy.EditHeader([](Json& header, size_t) {
    header[kHead] = header[kEmbedding];
    header.erase(kEmbedding);
  });
  Result<Checkpoint> checkpoint = copy.OpenCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->Find("embed.weight")->file_name, kHead);
  EXPECT_EQ(ValuesOf(*checkpoint, "embed.weight"), want);
}

TEST(TiedHead, UntiedAndAbsentIsRefusedByName) {
  CheckpointCopy copy("gqa");
  copy.Edit("config.json", [](Json& config) { config["tie_word_embeddings"] = false; });
  ExpectRefused(copy.Open(), ErrorCode::kCorrupt, "'lm_head.weight' is missing");
}

TEST(TiedHead, UntiedAndEqualStaysUntied) {
  Result<Checkpoint> checkpoint =
      WithHead("BF16", CheckpointCopy("gqa").Data(kEmbedding), /*tied=*/false).OpenCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_FALSE(checkpoint->config().tie_embeddings);
}

std::string Rendered(const std::string& source, bool tools) {
  Result<ChatTemplate> parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return "not parsed: " + parsed.status().message();
  ChatTemplateInput input;
  input.messages.push_back({"user", "hi"});
  if (tools) input.tools = nlohmann::ordered_json::parse(R"([{"name":"f"}])");
  input.bos_token = "<s>";
  Result<std::vector<TemplateRun>> runs = parsed->Render(input);
  if (!runs.ok()) return "error: " + runs.status().message();
  std::string text;
  for (const TemplateRun& run : *runs) text += run.text;
  return text;
}

TEST(TemplateByTools, RendersAsThePartByItself) {
  const std::vector<std::string> sources = {
      "{% for m in messages %}{{ m.content }}{% endfor %}",
      // White space at both ends, which tags before and behind must not take.
      "\n  {% if tools %}\nT{% endif %}\n  x  \n",
      "   {{ bos_token }}   ",
      "  {%- set a = 1 %}\n  {%+ if a %} {{ a }}{% endif -%}  \n\n",
      "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[0].role) }}\r\n",
      "{% raw %}{{ no }}{% endraw %}",
      "{# only this #}",
      "a\n\n",
  };
  for (const std::string& standard : sources) {
    for (const std::string& tool_use : sources) {
      const std::string both = TemplateByTools(standard, tool_use);
      EXPECT_EQ(Rendered(both, false), Rendered(standard, false)) << both;
      EXPECT_EQ(Rendered(both, true), Rendered(tool_use, true)) << both;
    }
  }
}

TEST(TemplateByTools, OneThatIsMissingOrBadLeavesTheOther) {
  EXPECT_EQ(TemplateByTools("a", ""), "a");
  EXPECT_EQ(TemplateByTools("", "b"), "");
  const std::string half = TemplateByTools("a", "{% if \"quoted\\ %}");
  EXPECT_EQ(Rendered(half, false), "a");
  EXPECT_THAT(Rendered(half, true), HasSubstr("error: "));
  EXPECT_THAT(Rendered(half, true), HasSubstr("the chat template for tools"));
  EXPECT_EQ(TemplateByTools("{% if", "b"), "{% if");
  // What would only close the other's blocks is not understood by itself.
  EXPECT_EQ(Rendered(TemplateByTools("a", "b{% endif %}c"), false), "a");
  // The brace would make another tag of the one that follows.
  EXPECT_EQ(Rendered(TemplateByTools("a{", "b{"), false), "a{");
}

TEST(ChatTemplates, OfToolsComeFromAllOfTheirPlaces) {
  CheckpointCopy copy("gqa");
  copy.Remove("chat_template.jinja");
  const auto rendered = [&copy](bool tools) {
    Result<Checkpoint> checkpoint = copy.OpenCheckpoint();
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    return Rendered(checkpoint->chat_template(), tools);
  };
  copy.Edit("tokenizer_config.json", [](Json& config) {
    config["chat_template"] =
        Json::parse(R"([{"name":"rag","template":"r"},{"name":"tool_use","template":"t"},
                        {"name":"default","template":"d"}])");
  });
  EXPECT_EQ(rendered(false), "d");
  EXPECT_EQ(rendered(true), "t");
  // Files win, all of them together.
  copy.Write("chat_template.jinja", "file");
  EXPECT_EQ(rendered(false), "file");
  EXPECT_EQ(rendered(true), "file");
  std::filesystem::create_directory(copy.path() + "/additional_chat_templates");
  copy.Write("additional_chat_templates/tool_use.jinja", "more");
  copy.Write("additional_chat_templates/rag.jinja", "{% bad");
  EXPECT_EQ(rendered(false), "file");
  EXPECT_EQ(rendered(true), "more");
}

TEST(ChatTemplates, OfAProcessorCountWhereThereIsNoOther) {
  CheckpointCopy copy("gqa");
  copy.Remove("chat_template.jinja");
  copy.Edit("tokenizer_config.json", [](Json& config) { config.erase("chat_template"); });
  EXPECT_EQ(copy.OpenCheckpoint()->chat_template(), "");
  copy.Write("chat_template.json", R"({"chat_template":"of the processor"})");
  EXPECT_EQ(copy.OpenCheckpoint()->chat_template(), "of the processor");
  copy.Edit("tokenizer_config.json", [](Json& config) { config["chat_template"] = "config"; });
  EXPECT_EQ(copy.OpenCheckpoint()->chat_template(), "config");
  copy.Remove("tokenizer_config.json");
  copy.Write("chat_template.json", "{");
  ExpectRefused(copy.Open(), ErrorCode::kCorrupt, "chat_template.json");
}

TEST(ChatTemplates, OfToolsInGguf) {
  const ScratchDirectory scratch;
  GgufBytes file = TinyLlamaGguf();
  file.AddString("tokenizer.chat_template", "d").AddString("tokenizer.chat_template.tool_use", "t");
  Result<Checkpoint> checkpoint = Checkpoint::Open(scratch.Write("m.gguf", file.Build()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(Rendered(checkpoint->chat_template(), false), "d");
  EXPECT_EQ(Rendered(checkpoint->chat_template(), true), "t");
}

constexpr char kLfsPointer[] =
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 4976698672\n";

TEST(OtherLayouts, PointersOfGitLfsAreNamedAsSuch) {
  for (const char* name : {"model.safetensors", "tokenizer.json"}) {
    CheckpointCopy copy("gqa");
    copy.Write(name, kLfsPointer);
    const Status status = copy.Open();
    EXPECT_THAT(status.message(), HasSubstr(copy.path() + "/" + name));
    EXPECT_THAT(status.message(), HasSubstr("git lfs pull"));
  }
  CheckpointCopy shard("sharded");
  shard.Write("model-00003-of-00004.safetensors", kLfsPointer);
  ExpectRefused(shard.Open(), ErrorCode::kNotFound, "model-00003-of-00004.safetensors: a pointer");
  const ScratchDirectory scratch;
  ExpectRefused(Checkpoint::Open(scratch.Write("m.gguf", kLfsPointer)).status(),
                ErrorCode::kNotFound, "git lfs pull");
}

TEST(OtherLayouts, WeightsOfOtherKindsAreNamedWithTheCure) {
  struct Case {
    const char *file, *part;
    ErrorCode code;
  };
  for (const Case& c : {
           Case{"pytorch_model.bin", "/pytorch_model.bin: pickle files", ErrorCode::kUnsupported},
           Case{"pytorch_model-00001-of-00002.bin", "save_pretrained", ErrorCode::kUnsupported},
           Case{"pytorch_model.bin.index.json", "index.json: pickle files",
                ErrorCode::kUnsupported},
           Case{"consolidated.00.pth", "/consolidated.00.pth: pickle", ErrorCode::kUnsupported},
           Case{"tf_model.h5", "/tf_model.h5: weights of TensorFlow", ErrorCode::kUnsupported},
           Case{"model-Q4_K_M.gguf", "/model-Q4_K_M.gguf", ErrorCode::kUnsupported},
           Case{"model-00001-of-00002.safetensors",
                "model.safetensors.index.json is there, only "
                "files like model-00001-of-00002.safetensors",
                ErrorCode::kNotFound},
           Case{"notes.txt", "neither model.safetensors nor model.safetensors.index.json",
                ErrorCode::kNotFound},
       }) {
    CheckpointCopy copy("gqa");
    copy.Remove("model.safetensors");
    copy.Write("training_args.bin", "PK");
    if (std::string_view(c.part).find("pickle") == std::string_view::npos) {
      copy.Remove("training_args.bin");
    }
    copy.Write(c.file, "PK");
    ExpectRefused(copy.Open(), c.code, c.part);
  }
}

TEST(OtherLayouts, DirectoriesWithoutAConfigurationSayWhatTheyAre) {
  struct Case {
    const char *file, *part;
    ErrorCode code;
  };
  for (const Case& c : {
           Case{"adapter_config.json", "an adapter, not a model", ErrorCode::kUnsupported},
           Case{"params.json", "its authors' own layout", ErrorCode::kUnsupported},
           Case{"m-00001-of-00002.gguf", "/m-00001-of-00002.gguf", ErrorCode::kUnsupported},
           Case{"model.safetensors", "config.json is not there", ErrorCode::kNotFound},
       }) {
    const ScratchDirectory scratch;
    scratch.Write(c.file, "{}");
    ExpectRefused(Checkpoint::Open(scratch.path()).status(), c.code, c.part);
  }
}

TEST(OtherLayouts, ATensorThatNoShardHasIsNamedWithAllOfThem) {
  CheckpointCopy copy("sharded");
  copy.Edit("model.safetensors.index.json", [](Json& index) {
    Json rest;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      if (file != "model-00004-of-00004.safetensors") rest[tensor] = file;
    }
    index["weight_map"] = rest;
  });
  const Status status = copy.Open();
  ExpectRefused(status, ErrorCode::kCorrupt, " is missing");
  EXPECT_THAT(status.message(), HasSubstr("and the 2 files with it"));
}

TEST(OtherLayouts, ALinkToEachFileIsAsGoodAsTheFile) {
  CheckpointCopy blobs("sharded");
  const ScratchDirectory scratch;
  const std::string snapshot = scratch / "snap shot \xc3\xa9";
  std::filesystem::create_directory(snapshot);
  for (const auto& entry : std::filesystem::directory_iterator(blobs.path())) {
    std::filesystem::create_symlink(entry.path(),
                                    snapshot + "/" + entry.path().filename().string());
  }
  Result<Checkpoint> linked = Checkpoint::Open(snapshot);
  ASSERT_TRUE(linked.ok()) << linked.status().message();
  Result<Checkpoint> plain = blobs.OpenCheckpoint();
  EXPECT_EQ(ValuesOf(*linked, "norm.weight"), ValuesOf(*plain, "norm.weight"));
  // One that leads nowhere is missing, and named.
  std::filesystem::rename(blobs.path() + "/model-00002-of-00004.safetensors", scratch / "away");
  ExpectRefused(Checkpoint::Open(snapshot).status(), ErrorCode::kNotFound,
                snapshot + "/model-00002-of-00004.safetensors");
}

}  // namespace
}  // namespace sluice
