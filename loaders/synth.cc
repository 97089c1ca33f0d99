#include "loaders/synth.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <span>
#include <system_error>
#include <thread>

#include "formats/checked.h"
#include "formats/sluice_writer.h"
#include "loaders/architecture.h"
#include "loaders/random_tiles.h"
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

// Threads that make pieces and write them: some compute while others wait for the disk.
constexpr int kThreadsPerProcessor = 3;
// Pieces lie in 2 MiB pages, where there are any: a write is few segments for the disk then.
constexpr uint64_t kBufferAlignment = uint64_t{2} << 20;

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
  // No word comes twice; looking for each among those before it would take most of the time.
  nlohmann::ordered_json::object_t vocab;
  for (int byte = 0; byte < 256; ++byte) vocab.emplace_back(ByteSpelling(byte), byte);
  const int64_t eos = vocab_size - 1;
  const int64_t bos = vocab_size - 2;
  for (int64_t id = 256; id < bos; ++id) {
    std::string word = ByteSpelling(' ');
    for (int64_t rest = id + 420; rest > 0; rest /= 26) word += static_cast<char>('a' + rest % 26);
    vocab.emplace_back(word, id);
  }
  nlohmann::ordered_json json;
  json["version"] = "1.0";
  json["added_tokens"] = nlohmann::ordered_json::array();
  for (const auto& [id, text] : {std::pair(bos, "<|bos|>"), std::pair(eos, "<|eos|>")}) {
    vocab.emplace_back(text, id);
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
  json["model"] = {
      {"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", nlohmann::json::array()}};
  const std::string text = json.dump();
  const std::string config = R"({"bos_token":"<|bos|>","eos_token":"<|eos|>"})";
  HuggingFaceTokenizerFiles files;
  files.tokenizer_json = text;
  files.tokenizer_config_json = config;
  Result<Tokenizer> tokenizer = Tokenizer::FromHuggingFace(files);
  if (!tokenizer.ok()) return tokenizer.status();
  return tokenizer->ToJson();
}

// Memory for one piece.
class PieceMemory {
 public:
  PieceMemory()
      : bytes_(static_cast<std::byte*>(
            std::aligned_alloc(kBufferAlignment, kSluiceMaxPieceBytes + kBufferAlignment))) {
    if (bytes_ != nullptr) madvise(bytes_.get(), kSluiceMaxPieceBytes, MADV_HUGEPAGE);
  }
  std::byte* get() const { return bytes_.get(); }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
};

// Several threads take the next piece, make it and write it. What a piece holds depends on the seed
// and its place alone.
class SynthWriter {
 public:
  SynthWriter(SluiceWriter* writer, const ConvertOptions& options, uint64_t seed)
      : writer_(writer), options_(options), seed_(seed) {}

  Status Run() {
    const int processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    const int wanted = options_.threads > 0 ? options_.threads : kThreadsPerProcessor * processors;
    const uint64_t affordable = options_.max_ram_bytes / (kSluiceMaxPieceBytes + kBufferAlignment);
    const int count =
        static_cast<int>(std::clamp<uint64_t>(affordable, 1, static_cast<uint64_t>(wanted)));
    std::vector<std::thread> threads;
    try {
      for (int i = 1; i < count; ++i) threads.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {
      // Those that there are will do.
    }
    Work();
    for (std::thread& thread : threads) thread.join();
    return first_error_;
  }

 private:
  void Work() {
    const PieceMemory memory;
    if (memory.get() == nullptr) return Fail(Status(ErrorCode::kOutOfMemory, "no memory"));
    while (!stopped_) {
      const uint64_t id = next_.fetch_add(1);
      if (id >= writer_->pieces().size()) return;
      if (Status s = WritePiece(static_cast<PieceId>(id), memory.get()); !s.ok()) return Fail(s);
    }
  }

  Status WritePiece(PieceId id, std::byte* memory) {
    const PieceEntry& piece = writer_->pieces()[id];
    const TileLayout& layout = writer_->LayoutOf(piece.tensor);
    const uint64_t first = piece.row_begin / layout.tile_rows;
    const uint64_t tiles = CeilDiv(piece.row_count, layout.tile_rows);
    if (layout.rows == 1) {  // a norm, as checkpoints mostly have them
      std::fill_n(reinterpret_cast<float*>(memory), layout.cols, 1.0f);
    } else {
      const Result<RandomTiles> random =
          RandomTiles::Make(layout, seed_ + piece.tensor * uint64_t{0x632be59bd9b4e019});
      if (!random.ok()) return random.status();
      for (uint64_t tile = 0; tile < tiles; ++tile) {
        random->Fill(first + tile, memory + tile * layout.tile_bytes);
      }
    }
    const std::span<const std::byte> bytes(memory, tiles * layout.tile_bytes);
    if (Status s = writer_->WritePiece(id, bytes); !s.ok()) return s;
    const std::lock_guard lock(mutex_);
    done_bytes_ += piece.size_bytes;
    if (!stopped_ && options_.progress &&
        !options_.progress(
            {done_bytes_, writer_->file_size_bytes(), writer_->NameOf(piece.tensor)})) {
      return Status(ErrorCode::kCancelled, "cancelled");
    }
    return Status();
  }

  void Fail(const Status& status) {
    const std::lock_guard lock(mutex_);
    if (!stopped_.exchange(true)) first_error_ = status;
  }

  SluiceWriter* writer_;
  const ConvertOptions& options_;
  const uint64_t seed_;
  std::atomic<uint64_t> next_ = 0;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;  // for all below
  uint64_t done_bytes_ = 0;
  Status first_error_;
};

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
  WriterOptions writer_options;
  writer_options.direct = true;
  writer_options.files = options.files;
  Result<std::unique_ptr<SluiceWriter>> writer =
      SluiceWriter::Create(output_path, contents, writer_options);
  if (!writer.ok()) return writer.status();
  if (Status s = SynthWriter(writer->get(), options, seed).Run(); !s.ok()) return s;
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
