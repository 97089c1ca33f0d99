#include "loaders/synth.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "formats/checked.h"
#include "formats/sluice_writer.h"
#include "loaders/architecture.h"
#include "loaders/quantizer.h"
#include "loaders/tokenizer/tokenizer.h"
#include "loaders/weight_plan.h"

namespace sluice {
namespace {

struct Shape {
  const char* name;
  int64_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn, context;
  double theta;
  bool tied;
};

constexpr Shape kShapes[] = {
    {"smollm2-135m", 49152, 576, 30, 9, 3, 64, 1536, 8192, 100000, true},
    {"llama-3.2-1b", 128256, 2048, 16, 32, 8, 64, 8192, 131072, 500000, true},
    {"llama-3-8b", 128256, 4096, 32, 32, 8, 128, 14336, 8192, 500000, false},
    {"llama-2-70b", 32000, 8192, 80, 64, 8, 128, 28672, 4096, 10000, false},
    {"llama-3-70b", 128256, 8192, 80, 64, 8, 128, 28672, 8192, 500000, false},
};

// Tiles of one tensor that differ; they repeat down its rows.
constexpr uint64_t kDistinctTiles = 16;

// SplitMix64 (Steele, Lea and Flood, 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // Uniform in [-1, 1).
  float Next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return static_cast<float>(static_cast<double>(z >> 11) * 0x1p-52 - 1.0);
  }

 private:
  uint64_t state_;
};

ModelConfig ConfigOf(const Shape& shape) {
  ModelConfig config;
  config.architecture = "llama";
  config.name = fmt::format("{} (random weights)", shape.name);
  config.vocab_size = shape.vocab;
  config.hidden_size = shape.hidden;
  config.num_layers = shape.layers;
  config.num_heads = shape.heads;
  config.num_kv_heads = shape.kv_heads;
  config.head_dim = shape.head_dim;
  config.intermediate_size = shape.ffn;
  config.context_length = shape.context;
  config.tie_embeddings = shape.tied;
  config.rope.theta = shape.theta;
  config.rope.dim = shape.head_dim;
  return config;
}

// GPT-2's printable spelling of a byte, in UTF-8.
std::string ByteSpelling(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  };
  int code = byte;
  if (!printable(byte)) {
    code = 0x100;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

// Every byte is a token, so any text can be written; all other ids spell words of letters, so that
// every id can be read.
Result<std::string> ByteTokenizerJson(int64_t vocab_size) {
  nlohmann::ordered_json vocab = nlohmann::ordered_json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[ByteSpelling(byte)] = byte;
  const int64_t eos = vocab_size - 1;
  const int64_t bos = vocab_size - 2;
  for (int64_t id = 256; id < bos; ++id) {
    std::string word = ByteSpelling(' ');
    for (int64_t rest = id + 420; rest > 0; rest /= 26) word += static_cast<char>('a' + rest % 26);
    vocab[word] = id;
  }
  nlohmann::ordered_json json;
  json["version"] = "1.0";
  json["added_tokens"] = nlohmann::ordered_json::array();
  for (const auto& [id, text] : {std::pair(bos, "<|bos|>"), std::pair(eos, "<|eos|>")}) {
    vocab[text] = id;
    json["added_tokens"].push_back({{"id", id},
                                    {"content", text},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  }
  const nlohmann::ordered_json byte_level = {{"type", "ByteLevel"},
                                             {"add_prefix_space", false},
                                             {"trim_offsets", true},
                                             {"use_regex", true}};
  json["pre_tokenizer"] = byte_level;
  json["decoder"] = byte_level;
  json["model"] = {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}};
  const std::string text = json.dump();
  const std::string config = R"({"bos_token":"<|bos|>","eos_token":"<|eos|>"})";
  HuggingFaceTokenizerFiles files;
  files.tokenizer_json = text;
  files.tokenizer_config_json = config;
  Result<Tokenizer> tokenizer = Tokenizer::FromHuggingFace(files);
  if (!tokenizer.ok()) return tokenizer.status();
  return tokenizer->ToJson();
}

// The distinct tiles of a tensor, one after the other.
Result<std::vector<std::byte>> RandomTiles(const TileLayout& layout, bool norm, Random* random) {
  const uint64_t tiles = std::min(kDistinctTiles, layout.num_tiles);
  std::vector<std::byte> bytes(tiles * layout.tile_bytes);
  std::vector<float> row(layout.cols);
  std::vector<uint32_t> values(layout.cols);
  std::vector<uint16_t> scales(layout.groups_per_row()), offsets(layout.groups_per_row());
  const RowCodes codes = {values.data(), scales.data(), offsets.data()};
  // The variance that keeps the size of activations from layer to layer.
  const float range = std::sqrt(3.0f / static_cast<float>(layout.cols));
  for (uint64_t r = 0; r < std::min(tiles * layout.tile_rows, layout.rows); ++r) {
    for (float& value : row) value = norm ? 1.0f : random->Next() * range;
    if (Status s = QuantizeRow(row.data(), layout, codes); !s.ok()) return s;
    PackRow(layout, static_cast<uint32_t>(r % layout.tile_rows), codes,
            bytes.data() + r / layout.tile_rows * layout.tile_bytes);
  }
  return bytes;
}

Status WriteTensors(SluiceWriter* writer, const ConvertOptions& options, uint64_t seed) {
  std::vector<std::byte> distinct, tiles;
  uint64_t done_bytes = 0;
  TensorId current = kNoIndex;
  for (PieceId id = 0; id < writer->pieces().size(); ++id) {
    const PieceEntry& piece = writer->pieces()[id];
    const TileLayout& layout = writer->LayoutOf(piece.tensor);
    if (piece.tensor != current) {
      current = piece.tensor;
      Random random(seed + current * uint64_t{0x632be59bd9b4e019});
      Result<std::vector<std::byte>> made = RandomTiles(layout, layout.rows == 1, &random);
      if (!made.ok()) return made.status();
      distinct = std::move(*made);
    }
    // The rows of every shape's matrices are whole tiles, so no padding is filled.
    const uint64_t count = CeilDiv(piece.row_count, layout.tile_rows);
    tiles.resize(count * layout.tile_bytes);
    for (uint64_t t = 0; t < count; ++t) {
      const uint64_t tile = piece.row_begin / layout.tile_rows + t;
      const uint64_t source = tile % (distinct.size() / layout.tile_bytes);
      std::copy_n(distinct.begin() + static_cast<ptrdiff_t>(source * layout.tile_bytes),
                  layout.tile_bytes, tiles.begin() + static_cast<ptrdiff_t>(t * layout.tile_bytes));
    }
    if (Status s = writer->WritePiece(id, tiles); !s.ok()) return s;
    done_bytes += piece.size_bytes;
    if (options.progress &&
        !options.progress({done_bytes, writer->file_size_bytes(), writer->NameOf(current)})) {
      return Status(ErrorCode::kCancelled, "cancelled");
    }
  }
  return Status();
}

Result<Shape> FindShape(std::string_view name) {
  std::string known;
  for (const Shape& shape : kShapes) {
    if (name == shape.name) return shape;
    known += known.empty() ? shape.name : fmt::format(", {}", shape.name);
  }
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("shape '{}' is not one of {}", name, known));
}

}  // namespace

std::vector<std::string_view> SynthShapes() {
  std::vector<std::string_view> names;
  for (const Shape& shape : kShapes) names.push_back(shape.name);
  return names;
}

Result<ConvertReport> SynthesizeModel(std::string_view name, const std::string& output_path,
                                      const ConvertOptions& options, uint64_t seed) {
  const auto start = std::chrono::steady_clock::now();
  Result<Shape> shape = FindShape(name);
  if (!shape.ok()) return shape.status();
  SluiceContents contents;
  contents.config = ConfigOf(*shape);
  if (Status s = contents.config.Validate(); !s.ok()) return s;
  Result<ModelDescription> description = DescribeModel(contents.config);
  if (!description.ok()) return description.status();
  Result<std::string> tokenizer = ByteTokenizerJson(shape->vocab);
  if (!tokenizer.ok()) return tokenizer.status();
  contents.tokenizer_json = std::move(*tokenizer);
  contents.provenance_json =
      nlohmann::json{{"source", fmt::format("synth {} seed {}", name, seed)}}.dump();
  // Norms as checkpoints mostly have them; matrices count as a float source.
  contents.groups = PlanWeights(*description, options.quantization, [](const std::string&) {
    return WeightType{WeightKind::kF32, WeightOffset::kNone, 0};
  });
  Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(output_path, contents);
  if (!writer.ok()) return writer.status();
  if (Status s = WriteTensors(writer->get(), options, seed); !s.ok()) return s;
  if (Status s = (*writer)->Finish(); !s.ok()) return s;
  ConvertReport report;
  report.file_bytes = (*writer)->file_size_bytes();
  report.source_bytes = report.file_bytes;
  report.tensors = RequiredTensors(*description).size();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.description = fmt::format("random weights in the shape of {}", name);
  return report;
}

}  // namespace sluice
