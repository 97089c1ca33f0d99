// Whole checkpoints: what other programs wrote (tests/golden/README.md), read in every way.
#include "loaders/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "formats/mapped_file.h"
#include "loaders/tensor_names.h"
#include "loaders/tokenizer/tokenizer.h"
#include "tests/support/checkpoint_copy.h"
#include "tests/support/foreign_files.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/sha256.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

const std::string kGolden = SLUICE_TEST_DATA_DIR "/golden/";

std::vector<float> ValuesOf(const Checkpoint& checkpoint, const SourceTensor& tensor) {
  const uint64_t row_bytes = SourceRowBytes(tensor.type, tensor.cols);
  std::vector<std::byte> rows(tensor.rows * row_bytes);
  const Status s = checkpoint.ReadRows(tensor, 0, tensor.rows, rows);
  EXPECT_TRUE(s.ok()) << s.message();
  std::vector<float> values(tensor.rows * tensor.cols);
  for (uint64_t row = 0; row < tensor.rows; ++row) {
    DecodeSourceRow(tensor.type, rows.data() + row * row_bytes, tensor.cols,
                    values.data() + row * tensor.cols);
  }
  return values;
}

TEST(CheckpointGguf, ValuesAreThoseOfTheGgufPackageWithQueriesAndKeysBackInOrder) {
  for (const char* type : {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "kquants"}) {
    Result<Checkpoint> checkpoint = Checkpoint::Open(kGolden + "gguf/" + type + ".gguf");
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    Result<std::string> text =
        ReadWholeFile(kGolden + "gguf/" + type + ".expected_tensors.json", 1'000'000);
    ASSERT_TRUE(text.ok());
    const Json expected = Json::parse(*text);
    size_t compared = 0;
    for (const SourceTensor& tensor : checkpoint->tensors()) {
      ASSERT_TRUE(expected.contains(tensor.file_name)) << tensor.file_name;
      const Json& want = expected[tensor.file_name];
      EXPECT_EQ(HuggingFaceDialect(checkpoint->config())
                    .CanonicalName(want["hf_name"].get<std::string>()),
                tensor.name);
      EXPECT_EQ(want["type"].get<std::string>(), SourceTypeName(tensor.type));
      const std::vector<float> values = ValuesOf(*checkpoint, tensor);
      EXPECT_EQ(Sha256Hex(std::as_bytes(std::span(values))), want["sha256"].get<std::string>())
          << type << " " << tensor.file_name;
      ++compared;
    }
    EXPECT_EQ(compared, expected.size() - expected.count("rope_freqs.weight")) << type;
    EXPECT_FALSE(checkpoint->chat_template().empty());
    EXPECT_TRUE(Tokenizer::FromJson(checkpoint->tokenizer_json()).ok()) << type;
    EXPECT_THAT(checkpoint->description(), HasSubstr(std::string(type) + ".gguf"));
  }
}

TEST(CheckpointGguf, TensorOfRotationFactorsDividesTheFrequencies) {
  Result<Checkpoint> checkpoint = Checkpoint::Open(kGolden + "gguf/f16.gguf");
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_THAT(checkpoint->config().rope.frequency_divisors,
              ::testing::ElementsAre(1.0f, 1.0f, 1.5f, 2.25f, 4.0f, 6.5f, 8.0f, 8.0f));
  EXPECT_EQ(checkpoint->config().rope.type, RopeType::kDefault);
}

TEST(CheckpointGguf, HasTheConfigurationOfItsOrigin) {
  Result<Checkpoint> gguf = Checkpoint::Open(kGolden + "gguf/q4_1.gguf");
  Result<Checkpoint> origin = Checkpoint::Open(kGolden + "gqa");
  ASSERT_TRUE(gguf.ok() && origin.ok());
  ModelConfig config = gguf->config();
  config.name = origin->config().name;
  config.norm_eps = origin->config().norm_eps;  // a float32 there
  EXPECT_EQ(config, origin->config());
  EXPECT_EQ(static_cast<float>(gguf->config().norm_eps),
            static_cast<float>(origin->config().norm_eps));
  EXPECT_EQ(gguf->tokenizer_json().empty(), false);
}

TEST(CheckpointGguf, AnyRangeOfRowsIsAPartOfTheWhole) {
  Result<Checkpoint> checkpoint = Checkpoint::Open(kGolden + "gguf/q8_0.gguf");
  ASSERT_TRUE(checkpoint.ok());
  const SourceTensor* tensor = checkpoint->Find("layers.0.attn.q.weight");
  ASSERT_NE(tensor, nullptr);
  ASSERT_FALSE(tensor->row_order.empty());
  const uint64_t row_bytes = SourceRowBytes(tensor->type, tensor->cols);
  std::vector<std::byte> whole(tensor->rows * row_bytes);
  ASSERT_TRUE(checkpoint->ReadRows(*tensor, 0, tensor->rows, whole).ok());
  for (uint64_t begin = 0; begin <= tensor->rows; ++begin) {
    for (const uint64_t count : {0, 1, 7, 16, 33}) {
      if (begin + count > tensor->rows) continue;
      std::vector<std::byte> part(count * row_bytes);
      ASSERT_TRUE(checkpoint->ReadRows(*tensor, begin, count, part).ok());
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + begin * row_bytes));
    }
  }
  std::vector<std::byte> row(row_bytes);
  for (const uint64_t begin : {tensor->rows, uint64_t{UINT64_MAX}}) {
    EXPECT_EQ(checkpoint->ReadRows(*tensor, begin, 1, row).code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(checkpoint->ReadRows(*tensor, 0, 2, row).code(), ErrorCode::kInvalidArgument);
}

TEST(CheckpointGguf, RowsOfManyHeadsAreReadInOrderAcrossPasses) {
  // 40 heads of 32: 1280 rows, several passes of the reader, whose boundaries cut through heads.
  constexpr uint64_t kHeads = 40, kDim = 32, kHidden = kHeads * kDim;
  GgufBytes file = TinyLlamaGguf();
  file.Remove("llama.attention.head_count").AddU32("llama.attention.head_count", kHeads);
  file.Remove("llama.embedding_length").AddU32("llama.embedding_length", kHidden);
  for (GgufTensorBytes& tensor : file.tensors) {
    for (uint64_t& dim : tensor.dims) dim = dim == 32 ? kHidden : dim == 16 ? kDim : dim;
    const uint64_t count =
        std::accumulate(tensor.dims.begin(), tensor.dims.end(), uint64_t{1}, std::multiplies<>());
    tensor.type = 1;  // F16
    tensor.data.assign(count * 2, '\0');
  }
  std::string& data = file.Tensor("blk.0.attn_q.weight").data;
  for (uint64_t head = 0; head < kHeads; ++head) {
    for (uint64_t i = 0; i < kDim; ++i) {
      // What llama.cpp's converter does: canonical row i goes to 2 * (i % 16) + i / 16.
      const uint64_t stored = head * kDim + 2 * (i % (kDim / 2)) + i / (kDim / 2);
      const auto canonical = static_cast<uint16_t>(head * kDim + i);
      std::memcpy(data.data() + stored * kHidden * 2, &canonical, 2);
    }
  }
  const ScratchDirectory scratch;
  Result<Checkpoint> checkpoint = Checkpoint::Open(scratch.Write("m.gguf", file.Build()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const SourceTensor* tensor = checkpoint->Find("layers.0.attn.q.weight");
  std::vector<std::byte> rows(kHidden * kHidden * 2);
  ASSERT_TRUE(checkpoint->ReadRows(*tensor, 0, kHidden, rows).ok());
  for (uint64_t row = 0; row < kHidden; ++row) {
    uint16_t value;
    std::memcpy(&value, rows.data() + row * kHidden * 2, 2);
    ASSERT_EQ(value, row);
  }
}

TEST(CheckpointGguf, BiasesOfQueriesAndKeysArePutBackInOrderToo) {
  GgufBytes file = TinyLlamaGguf();
  std::string bias;
  for (int i = 0; i < 32; ++i) bias += LittleEndian(static_cast<float>(i));
  file.AddTensor({"blk.0.attn_q.bias", {32}, 0, bias});
  file.AddTensor({"blk.0.attn_k.bias", {16}, 0, bias.substr(0, 64)});
  file.AddTensor({"blk.0.attn_v.bias", {16}, 0, bias.substr(0, 64)});
  const ScratchDirectory scratch;
  Result<Checkpoint> checkpoint = Checkpoint::Open(scratch.Write("m.gguf", file.Build()));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_TRUE(checkpoint->config().attention_bias);
  EXPECT_FALSE(checkpoint->config().attention_output_bias);
  const std::vector<float> q = ValuesOf(*checkpoint, *checkpoint->Find("layers.0.attn.q.bias"));
  const std::vector<float> v = ValuesOf(*checkpoint, *checkpoint->Find("layers.0.attn.v.bias"));
  for (size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(q[i], static_cast<float>(i / 16 * 16 + 2 * (i % 8) + i % 16 / 8)) << i;
  }
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(v[i], static_cast<float>(i));
}

TEST(CheckpointGguf, FileCutAfterOpenIsAnErrorOfTheRead) {
  const ScratchDirectory scratch;
  const std::string path = scratch.Write("m.gguf", TinyLlamaGguf().Build());
  Result<Checkpoint> checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  std::filesystem::resize_file(path, 100);
  const SourceTensor* tensor = checkpoint->Find("embed.weight");
  std::vector<std::byte> row(SourceRowBytes(tensor->type, tensor->cols));
  const Status s = checkpoint->ReadRows(*tensor, 0, 1, row);
  EXPECT_EQ(s.code(), ErrorCode::kTruncated);
  EXPECT_THAT(s.message(), HasSubstr("token_embd.weight"));
  EXPECT_THAT(s.message(), HasSubstr(path));
}

TEST(CheckpointHuggingFace, OpensEveryGolden) {
  struct Golden {
    const char* name;
    SourceType type;
    size_t tensors;
  };
  for (const Golden& golden :
       {Golden{"mha", SourceType::kF32, 20}, Golden{"gqa", SourceType::kBF16, 20},
        Golden{"mqa", SourceType::kF16, 21}, Golden{"bias_linear", SourceType::kBF16, 35},
        Golden{"head_dim", SourceType::kF16, 20}, Golden{"llama3", SourceType::kBF16, 20},
        Golden{"yarn_given", SourceType::kF16, 20}, Golden{"sharded", SourceType::kBF16, 42}}) {
    Result<Checkpoint> checkpoint = Checkpoint::Open(kGolden + golden.name);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    EXPECT_EQ(checkpoint->tensors().size(), golden.tensors) << golden.name;
    EXPECT_EQ(checkpoint->Find("embed.weight")->type, golden.type);
    EXPECT_EQ(checkpoint->config().name, golden.name);
    EXPECT_THAT(checkpoint->chat_template(), HasSubstr("{%"));
    EXPECT_TRUE(Tokenizer::FromJson(checkpoint->tokenizer_json()).ok());
    EXPECT_EQ(checkpoint->Find("layers.99.attn.q.weight"), nullptr);
    uint64_t size_bytes = 0;
    for (const SourceTensor& tensor : checkpoint->tensors()) {
      size_bytes += ValuesOf(*checkpoint, tensor).size() * SourceRowBytes(tensor.type, 32) / 32;
    }
    EXPECT_EQ(checkpoint->size_bytes(), size_bytes);
  }
}

TEST(CheckpointHuggingFace, ValuesAreThoseOfTheGgufMadeFromIt) {
  Result<Checkpoint> origin = Checkpoint::Open(kGolden + "gqa");
  Result<Checkpoint> gguf = Checkpoint::Open(kGolden + "gguf/f32.gguf");
  ASSERT_TRUE(origin.ok() && gguf.ok());
  for (const SourceTensor& tensor : gguf->tensors()) {
    const SourceTensor* same = origin->Find(tensor.name);
    ASSERT_NE(same, nullptr) << tensor.name;
    EXPECT_EQ(ValuesOf(*gguf, tensor), ValuesOf(*origin, *same)) << tensor.name;
  }
}

using Copy = CheckpointCopy;

void ExpectRefused(const Status& status, ErrorCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr(part));
}

TEST(CheckpointHuggingFace, NamesWhatIsMissing) {
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    Copy copy("gqa");
    copy.Remove(name);
    ExpectRefused(copy.Open(), ErrorCode::kNotFound, name);
  }
  Copy copy("sharded");
  copy.Remove("model-00002-of-00004.safetensors");
  ExpectRefused(copy.Open(), ErrorCode::kNotFound, "model-00002-of-00004.safetensors");
  ExpectRefused(Checkpoint::Open(copy.path() + "/absent").status(), ErrorCode::kNotFound, "absent");
}

TEST(CheckpointHuggingFace, NamesTheTensorThatIsMissing) {
  Copy copy("gqa");
  copy.EditHeader([](Json& header, size_t) {
    header["model.layers.1.self_attn.rotary_emb.inv_freq"] =
        header["model.layers.1.self_attn.v_proj.weight"];
    header.erase("model.layers.1.self_attn.v_proj.weight");
  });
  ExpectRefused(copy.Open(), ErrorCode::kCorrupt,
                "'model.layers.1.self_attn.v_proj.weight' is missing");
}

TEST(CheckpointHuggingFace, MoreLayersThanItsTensorsCanBeAreNotDescribed) {
  Copy copy("gqa");
  copy.Edit("config.json", [](Json& config) { config["num_hidden_layers"] = 4096; });
  ExpectRefused(copy.Open(), ErrorCode::kCorrupt, "cannot be the 4096 layers of the configuration");
}

TEST(CheckpointHuggingFace, NamesTheTensorThatIsTooMuch) {
  Copy unknown("gqa");
  unknown.EditHeader(
      [](Json& header, size_t end) {
        header["model.layers.0.self_attn.q_norm.weight"] = {
            {"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {end, end + 4}}};
      },
      "1234");
  ExpectRefused(unknown.Open(), ErrorCode::kUnsupported, "self_attn.q_norm.weight");
  // Known by name, but not with this configuration.
  Copy bias("bias_linear");
  bias.Edit("config.json", [](Json& config) { config["mlp_bias"] = false; });
  ExpectRefused(bias.Open(), ErrorCode::kUnsupported, "mlp.");
  Copy layers("gqa");
  layers.Edit("config.json", [](Json& config) { config["num_hidden_layers"] = 1; });
  ExpectRefused(layers.Open(), ErrorCode::kUnsupported, "model.layers.1.");
}

TEST(CheckpointHuggingFace, IgnoresALeftover) {
  Copy copy("gqa");
  copy.EditHeader(
      [](Json& header, size_t end) {
        header["model.layers.0.self_attn.rotary_emb.inv_freq"] = {
            {"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {end, end + 4}}};
      },
      "1234");
  Result<Checkpoint> checkpoint = copy.OpenCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->tensors().size(), 20u);
  EXPECT_EQ(checkpoint->Find("head.weight"), nullptr);
}

TEST(CheckpointHuggingFace, NamesTheTensorOfAnotherShape) {
  Copy copy("gqa");
  copy.EditHeader([](Json& header, size_t) {
    header["model.layers.0.mlp.up_proj.weight"]["shape"] = {64, 96};
  });
  ExpectRefused(copy.Open(), ErrorCode::kCorrupt,
                "'model.layers.0.mlp.up_proj.weight': shape [64, 96], the configuration wants "
                "[96, 64]");
}

TEST(CheckpointHuggingFace, NamesTheTensorOfATypeThatCannotBeRead) {
  Copy copy("gqa");
  copy.EditHeader(
      [](Json& header, size_t) { header["model.layers.0.mlp.up_proj.weight"]["dtype"] = "I16"; });
  ExpectRefused(copy.Open(), ErrorCode::kUnsupported,
                "'model.layers.0.mlp.up_proj.weight': type I16");
}

TEST(CheckpointHuggingFace, FindsTensorsThatAreNotWhereTheIndexSays) {
  Copy moved("sharded");
  moved.Edit("model.safetensors.index.json", [](Json& index) {
    index["weight_map"]["lm_head.weight"] = "model-00002-of-00004.safetensors";
  });
  ExpectRefused(moved.Open(), ErrorCode::kCorrupt, "lm_head.weight");
  Copy twice("sharded");
  twice.Write("again.safetensors", twice.Read("model-00001-of-00004.safetensors"));
  twice.Edit("model.safetensors.index.json", [](Json& index) {
    for (auto& [tensor, file] : index["weight_map"].items()) {
      if (file == "model-00001-of-00004.safetensors") {
        file = "again.safetensors";
        break;
      }
    }
  });
  EXPECT_EQ(twice.Open().code(), ErrorCode::kCorrupt);
  Copy outside("sharded");
  outside.Edit("model.safetensors.index.json", [](Json& index) {
    index["weight_map"]["lm_head.weight"] = "../../model.safetensors";
  });
  ExpectRefused(outside.Open(), ErrorCode::kCorrupt, "'../../model.safetensors'");
}

TEST(CheckpointHuggingFace, ReadsNoPickle) {
  Copy copy("gqa");
  copy.Remove("model.safetensors");
  copy.Write("pytorch_model.bin", "PK");
  ExpectRefused(copy.Open(), ErrorCode::kUnsupported, "pytorch_model.bin");
}

TEST(CheckpointHuggingFace, MoreTokensThanRowsAreRefused) {
  Copy copy("gqa");
  copy.Edit("tokenizer.json", [](Json& json) { json["model"]["vocab"]["<x>"] = 5000; });
  ExpectRefused(copy.Open(), ErrorCode::kCorrupt, "tokenizer");
}

// Gemma 3 1B has the token of the larger models' images, and no row for it.
TEST(CheckpointHuggingFace, AnAddedTokenBeyondTheRowsIsOrdinaryText) {
  Copy copy("gqa");
  const int64_t rows = copy.OpenCheckpoint()->config().vocab_size;
  const auto size = [](Copy& of) {
    return Tokenizer::FromJson(of.OpenCheckpoint()->tokenizer_json())->vocab_size();
  };
  const int64_t tokens = size(copy);
  const auto add = [&copy](const std::string& text) {
    copy.Edit("tokenizer.json", [&text](Json& json) {
      json["added_tokens"].push_back({{"id", 5000},
                                      {"content", text},
                                      {"special", true},
                                      {"single_word", false},
                                      {"lstrip", false},
                                      {"rstrip", false},
                                      {"normalized", false}});
    });
  };
  for (int64_t i = tokens; i < rows + 2; ++i) add("<x" + std::to_string(i) + ">");
  EXPECT_EQ(size(copy), rows);
  Result<Tokenizer> tokenizer = Tokenizer::FromJson(copy.OpenCheckpoint()->tokenizer_json());
  EXPECT_EQ(tokenizer->Find("<x" + std::to_string(rows) + ">"), std::nullopt);
  // One that ends a text cannot be left out.
  copy.Edit("tokenizer_config.json",
            [rows](Json& config) { config["eos_token"] = "<x" + std::to_string(rows + 1) + ">"; });
  ExpectRefused(copy.Open(), ErrorCode::kCorrupt, "tokenizer");
}

TEST(CheckpointHuggingFace, WithoutATokenizerFileThatIsReadSaysHowToMakeOne) {
  Copy copy("gqa");
  copy.Remove("tokenizer.json");
  copy.Write("vocab.json", "{}");
  copy.Write("merges.txt", "");
  ExpectRefused(copy.Open(), ErrorCode::kNotFound, "save_pretrained");
}

// As its members are written by the tools that people publish with.
TEST(CheckpointHuggingFace, MembersThatSayNothingOfTheModelAreNoHindrance) {
  Copy copy("gqa");
  copy.Edit("config.json", [](Json& config) {
    config["torch_dtype"] = "bfloat16";
    config["dtype"] = "float16";
    config["_name_or_path"] = "somebody/something";
    config["auto_map"] = {{"AutoConfig", "configuration.Config"}};
    config["transformers_version"] = "4.31.0";
    config["quantization_config"] = nullptr;
    config["eos_token_id"] = {1, 2, 5000};
  });
  copy.Write("tokenizer_config.json",
             R"({"model_max_length":1000000000000000019884624838656,"bos_token":null,
                 "tokenizer_class":"PreTrainedTokenizerFast","added_tokens_decoder":{},
                 "extra_special_tokens":{},"clean_up_tokenization_spaces":false})");
  copy.Write("generation_config.json",
             R"({"_from_model_config":true,"eos_token_id":[1,2],"temperature":0.6})");
  copy.Write("added_tokens.json", R"({"<never>":1})");
  Result<Checkpoint> checkpoint = copy.OpenCheckpoint();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  Result<Tokenizer> tokenizer = Tokenizer::FromJson(checkpoint->tokenizer_json());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_THAT(tokenizer->eos_ids(), ::testing::UnorderedElementsAre(1, 2));
  EXPECT_EQ(tokenizer->Find("<never>"), std::nullopt);
}

// Some shards are published twice, or in older containers beside these.
TEST(CheckpointHuggingFace, FilesThatTheIndexDoesNotNameAreNotRead) {
  Copy copy("sharded");
  copy.Write("consolidated.safetensors", "damaged");
  copy.Write("model-00001-of-00002.safetensors", "damaged");
  copy.Write("pytorch_model.bin", "PK");
  copy.Edit("model.safetensors.index.json",
            [](Json& index) { index["metadata"]["total_size"] = 1; });
  EXPECT_TRUE(copy.Open().ok()) << copy.Open().message();
}

TEST(CheckpointHuggingFace, NamesWithoutThePrefixOfTheModelAreTheSame) {
  Copy copy("gqa");
  copy.EditHeader([](Json& header, size_t) {
    Json renamed;
    for (const auto& [name, entry] : header.items()) {
      renamed[name.starts_with("model.") ? name.substr(6) : name] = entry;
    }
    header = renamed;
  });
  EXPECT_TRUE(copy.Open().ok()) << copy.Open().message();
}

TEST(CheckpointHuggingFace, FindsTheChatTemplateInEachOfItsPlaces) {
  const auto template_of = [](const char* jinja, const Json& in_config) {
    Copy copy("gqa");
    copy.Remove("chat_template.jinja");
    if (jinja != nullptr) copy.Write("chat_template.jinja", jinja);
    copy.Edit("tokenizer_config.json",
              [&in_config](Json& config) { config["chat_template"] = in_config; });
    Result<Checkpoint> checkpoint = copy.OpenCheckpoint();
    return checkpoint.ok() ? checkpoint->chat_template() : checkpoint.status().message();
  };
  EXPECT_EQ(template_of("file", "config"), "file");
  EXPECT_EQ(template_of(nullptr, "config"), "config");
  EXPECT_EQ(template_of(nullptr, nullptr), "");
  EXPECT_EQ(template_of(nullptr, Json::parse(R"([{"name":"rag","template":"t"},
                                                 {"name":"default","template":"d"}])")),
            "d");
  EXPECT_EQ(template_of(nullptr, Json::parse(R"([{"name":"rag","template":"r"}])")), "");
  EXPECT_THAT(template_of(nullptr, 7), HasSubstr("chat_template"));
  EXPECT_THAT(template_of(nullptr, Json::parse(R"([{"name":"default"}])")),
              HasSubstr("tokenizer_config.json"));
}

TEST(Checkpoint, RefusesFilesOfOtherKinds) {
  const ScratchDirectory scratch;
  ExpectRefused(Checkpoint::Open(scratch.Write("model.safetensors", "whatever")).status(),
                ErrorCode::kUnsupported, "not a GGUF file");
  ExpectRefused(Checkpoint::Open(scratch.Write("empty", "")).status(), ErrorCode::kUnsupported,
                "empty");
}

}  // namespace
}  // namespace sluice
