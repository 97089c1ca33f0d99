// The .sluice file: what was written is read, and nothing that is damaged or contradictory is.
#include "formats/sluice_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "formats/half.h"
#include "formats/sluice_records.h"
#include "formats/sluice_writer.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

ModelConfig TinyConfig() {
  ModelConfig config;
  config.architecture = "llama";
  config.vocab_size = 20;
  config.hidden_size = 40;
  config.num_layers = 1;
  config.num_heads = config.num_kv_heads = 2;
  config.head_dim = 20;
  config.intermediate_size = 48;
  config.context_length = 64;
  config.rope.dim = 20;
  return config;
}

SluiceContents TinyContents() {
  SluiceContents contents;
  contents.config = TinyConfig();
  contents.tokenizer_json = "{\"a tokenizer\":1}";
  contents.chat_template = "{{ messages }}";
  contents.provenance_json = "{}";
  PlannedGroup embedding{GroupKind::kEmbedding, kNoIndex, kNoIndex, {}};
  embedding.tensors.push_back(
      {"embed.weight", {WeightKind::kInt8, WeightOffset::kNone, 32}, 1, 20, 40});
  PlannedGroup attention{GroupKind::kAttention, 0, kNoIndex, {}};
  attention.tensors.push_back({"norm", {WeightKind::kF32, WeightOffset::kNone, 0}, 1, 1, 40});
  attention.tensors.push_back(
      {"q", {WeightKind::kInt4, WeightOffset::kZeroPoint, 128}, kTileRows, 37, 40});
  attention.tensors.push_back(
      {"k", {WeightKind::kInt4, WeightOffset::kMinimum, 32}, kTileRows, 16, 200});
  contents.groups = {embedding, attention};
  return contents;
}

// Bytes of a tile that depend on where they are, so that a swap shows.
Bytes PieceContent(const SluiceWriter& writer, PieceId id) {
  const PieceEntry& piece = writer.pieces()[id];
  const TileLayout& layout = writer.LayoutOf(piece.tensor);
  Bytes bytes((piece.row_count + layout.tile_rows - 1) / layout.tile_rows * layout.tile_bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>((i * 31 + id * 7 + 1) & 0xff);
  }
  return bytes;
}

std::string WriteTiny(const std::string& path, const SluiceContents& contents = TinyContents()) {
  Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(path, contents);
  EXPECT_TRUE(writer.ok()) << writer.status().message();
  for (PieceId id = 0; id < (*writer)->pieces().size(); ++id) {
    EXPECT_TRUE((*writer)->WritePiece(id, PieceContent(**writer, id)).ok());
  }
  const Status finished = (*writer)->Finish();
  EXPECT_TRUE(finished.ok()) << finished.message();
  return path;
}

Bytes ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Bytes bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// Owns the bytes that it reads from.
class OwnedBytes : public ByteSource {
 public:
  explicit OwnedBytes(Bytes bytes) : bytes_(std::move(bytes)), view_(bytes_, "the/file") {}
  uint64_t size_bytes() const override { return view_.size_bytes(); }
  const std::string& name() const override { return view_.name(); }
  Status ReadAt(uint64_t offset, std::span<std::byte> out) const override {
    return view_.ReadAt(offset, out);
  }

 private:
  Bytes bytes_;
  MemoryBytes view_;
};

// Opens and verifies everything, as `sluice verify` does.
Status OpenAndVerify(const Bytes& bytes) {
  Result<std::shared_ptr<const SluiceFile>> file =
      SluiceFile::Parse(std::make_unique<OwnedBytes>(bytes));
  if (!file.ok()) return file.status();
  for (PieceId id = 0; id < (*file)->pieces().size(); ++id) {
    const PieceEntry& piece = (*file)->pieces()[id];
    const Status status =
        (*file)->VerifyPiece(id, std::span(bytes).subspan(piece.offset_bytes, piece.size_bytes));
    if (!status.ok()) return status;
  }
  return Status();
}

class SluiceFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = WriteTiny(scratch_ / "tiny.sluice");
    bytes_ = ReadBytes(path_);
    ASSERT_TRUE(OpenAndVerify(bytes_).ok()) << OpenAndVerify(bytes_).message();
  }

  template <typename Record>
  Record Load(uint64_t offset) const {
    Record record;
    std::memcpy(&record, bytes_.data() + offset, sizeof(record));
    return record;
  }
  template <typename Record>
  void Store(uint64_t offset, const Record& record) {
    std::memcpy(bytes_.data() + offset, &record, sizeof(record));
  }

  uint64_t SectionOffset(uint32_t kind) const {
    const auto header = Load<HeaderRecord>(0);
    for (const SectionRecord& section : header.sections) {
      if (section.kind == kind) return section.offset;
    }
    ADD_FAILURE() << "no section " << kind;
    return 0;
  }

  // Edits a record in place.
  template <typename Record>
  void Edit(uint64_t offset, const std::function<void(Record&)>& edit) {
    auto record = Load<Record>(offset);
    edit(record);
    Store(offset, record);
  }

  // Makes the checksums of header and metadata right again, so that the rules must find the fault.
  void Repair() {
    auto header = Load<HeaderRecord>(0);
    if (header.metadata_size >= kSluiceHeaderBytes && header.metadata_size <= bytes_.size()) {
      header.metadata_hash = HashBytes(
          std::span(bytes_).subspan(kSluiceHeaderBytes, header.metadata_size - kSluiceHeaderBytes));
    }
    header.header_hash = HashBytes(std::as_bytes(std::span(&header, 1)).first(504));
    Store(0, header);
  }

  void ExpectRefused(ErrorCode code, const std::string& part, const std::string& what) {
    Repair();
    const Status status = OpenAndVerify(bytes_);
    EXPECT_EQ(status.code(), code) << what << ": " << status.message();
    EXPECT_THAT(status.message(), HasSubstr("the/file")) << what;
    EXPECT_THAT(status.message(), HasSubstr(part)) << what;
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << what;
    bytes_ = ReadBytes(path_);
  }

  ScratchDirectory scratch_;
  std::string path_;
  Bytes bytes_;
};

TEST_F(SluiceFileTest, HoldsWhatWasWritten) {
  Result<std::shared_ptr<const SluiceFile>> opened = SluiceFile::Open(path_);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  const SluiceFile& file = **opened;
  EXPECT_EQ(file.config(), TinyConfig());
  EXPECT_EQ(file.tokenizer_json(), "{\"a tokenizer\":1}");
  EXPECT_EQ(file.chat_template(), "{{ messages }}");
  ASSERT_EQ(file.tensors().size(), 4u);
  ASSERT_EQ(file.groups().size(), 2u);
  EXPECT_EQ(file.groups()[1].kind, GroupKind::kAttention);
  EXPECT_EQ(file.groups()[1].layer, 0u);
  const TensorId q = file.Find("q");
  ASSERT_NE(q, kNoIndex);
  EXPECT_EQ(file.tensors()[q].layout.rows, 37u);
  EXPECT_EQ(file.tensors()[q].layout.cols, 40u);
  EXPECT_EQ(file.Find("Q"), kNoIndex);
  for (const PieceEntry& piece : file.pieces()) {
    EXPECT_EQ(piece.offset_bytes % 4096, 0u);
    EXPECT_EQ(piece.size_bytes % 4096, 0u);
  }
}

TEST_F(SluiceFileTest, EveryFlippedByteIsFoundAndPlaced) {
  Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(path_);
  ASSERT_TRUE(file.ok());
  const uint64_t metadata = (*file)->metadata_size_bytes();
  for (size_t i = 0; i < bytes_.size(); ++i) {
    const std::byte good = bytes_[i];
    bytes_[i] = good ^ static_cast<std::byte>(1u << (i % 8));
    const Status status = OpenAndVerify(bytes_);
    ASSERT_THAT(status.code(), AnyOf(ErrorCode::kCorrupt, ErrorCode::kTruncated)) << "byte " << i;
    ASSERT_THAT(status.message(), HasSubstr("the/file"));
    if (i >= metadata) {
      ASSERT_THAT(status.message(), HasSubstr("tensor '")) << "byte " << i;
      ASSERT_THAT(status.message(), HasSubstr("offset")) << "byte " << i;
    }
    bytes_[i] = good;
  }
}

TEST_F(SluiceFileTest, EveryTruncationIsRefused) {
  for (size_t size = 0; size < bytes_.size(); ++size) {
    const Status status =
        OpenAndVerify(Bytes(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(size)));
    ASSERT_EQ(status.code(), ErrorCode::kTruncated) << size << ": " << status.message();
  }
}

TEST_F(SluiceFileTest, BytesBehindTheEndAreRefused) {
  bytes_.resize(bytes_.size() + 1);
  EXPECT_EQ(OpenAndVerify(bytes_).code(), ErrorCode::kCorrupt);
}

TEST_F(SluiceFileTest, FilesOfAnotherKindAreRefused) {
  for (const std::string& text : {std::string("GGUF\3\0\0\0", 8), std::string(5000, 'x')}) {
    Bytes other(text.size());
    std::memcpy(other.data(), text.data(), text.size());
    const Status status = OpenAndVerify(other);
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
    EXPECT_THAT(status.message(), HasSubstr("not a .sluice file"));
  }
  EXPECT_EQ(SluiceFile::Open(scratch_ / "absent").status().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(SluiceFile::Open(scratch_.path()).ok());
}

TEST_F(SluiceFileTest, UnknownVersionsAndFeatures) {
  using Header = HeaderRecord;
  Edit<Header>(0, [](Header& h) { h.version = 2; });
  ExpectRefused(ErrorCode::kUnsupported, "version 2", "another version");
  Edit<Header>(0, [](Header& h) { h.required_features = uint64_t{1} << 63; });
  ExpectRefused(ErrorCode::kUnsupported, "0x8000000000000000", "an unknown required feature");
  Edit<Header>(0, [](Header& h) { h.optional_features = 0xff; });
  Repair();
  EXPECT_TRUE(OpenAndVerify(bytes_).ok()) << "unknown optional features are ignored";
}

TEST_F(SluiceFileTest, TypesOfGgufNeedTheirFeature) {
  EXPECT_EQ(Load<HeaderRecord>(0).required_features, 0u);
  SluiceContents contents = TinyContents();
  contents.groups[1].tensors.push_back(
      {"v", {WeightKind::kQ4K, WeightOffset::kMinimum, 32}, kTileRows, 33, 512});
  path_ = WriteTiny(scratch_ / "kquants.sluice", contents);
  bytes_ = ReadBytes(path_);
  EXPECT_EQ(Load<HeaderRecord>(0).required_features, 1u);
  EXPECT_TRUE(OpenAndVerify(bytes_).ok()) << OpenAndVerify(bytes_).message();
  Edit<HeaderRecord>(0, [](HeaderRecord& h) { h.required_features = 0; });
  ExpectRefused(ErrorCode::kCorrupt, "type q4_k without required feature 0x1", "a missing feature");
  const uint64_t tensors = Load<HeaderRecord>(0).sections[5].offset;
  ASSERT_EQ(Load<HeaderRecord>(0).sections[5].kind, kSectionTensors);
  Edit<TensorRecord>(tensors + 4 * sizeof(TensorRecord), [](TensorRecord& t) { t.cols = 511; });
  ExpectRefused(ErrorCode::kUnsupported, "rows of 511 values are not whole super-blocks",
                "a row that is cut");
  Edit<TensorRecord>(tensors + 4 * sizeof(TensorRecord), [](TensorRecord& t) { t.kind = 9; });
  ExpectRefused(ErrorCode::kUnsupported, "type 9/2/32 is not known", "a kind of later versions");
}

TEST_F(SluiceFileTest, HeadersThatContradictThemselves) {
  using Header = HeaderRecord;
  const std::vector<std::pair<const char*, std::function<void(Header&)>>> faults = {
      {"header size", [](Header& h) { h.header_size = 256; }},
      {"alignment", [](Header& h) { h.alignment = 512; }},
      {"chunk size", [](Header& h) { h.chunk_size = 0; }},
      {"sections beyond the list", [](Header& h) { h.section_count = 17; }},
      {"no sections", [](Header& h) { h.section_count = 0; }},
      {"a reserved field", [](Header& h) { h.reserved = 1; }},
      {"reserved bytes", [](Header& h) { h.reserved_tail[47] = 1; }},
      {"metadata of nothing", [](Header& h) { h.metadata_size = 0; }},
      {"metadata that is not aligned", [](Header& h) { h.metadata_size -= 8; }},
      {"metadata beyond the file", [](Header& h) { h.metadata_size = uint64_t{1} << 62; }},
      {"a section before its place", [](Header& h) { h.sections[1].offset -= 8; }},
      {"a section behind its place", [](Header& h) { h.sections[1].offset += 8; }},
      {"a section that wraps", [](Header& h) { h.sections[0].size = ~uint64_t{0} - 100; }},
      {"a section beyond the metadata", [](Header& h) { h.sections[8].size = uint64_t{1} << 40; }},
      {"a section twice", [](Header& h) { h.sections[1].kind = h.sections[0].kind; }},
      {"a section of kind 0", [](Header& h) { h.sections[1].kind = 0; }},
      {"no section of tensors",
       [](Header& h) {
         for (auto& s : h.sections)
           if (s.kind == kSectionTensors) s.kind = 77;
       }},
      {"an unused section in use", [](Header& h) { h.sections[15].size = 1; }},
  };
  for (const auto& [what, edit] : faults) {
    Edit<Header>(0, edit);
    ExpectRefused(ErrorCode::kCorrupt, "", what);
  }
  Edit<Header>(0, [](Header& h) { h.file_size += 4096; });
  ExpectRefused(ErrorCode::kTruncated, "", "a file shorter than it says");
  Edit<Header>(0, [](Header& h) { h.file_size -= 4096; });
  ExpectRefused(ErrorCode::kCorrupt, "", "a file longer than it says");
}

TEST_F(SluiceFileTest, AnUnknownSectionIsIgnored) {
  Edit<HeaderRecord>(0, [](HeaderRecord& h) {
    for (auto& section : h.sections) {
      if (section.kind == kSectionProvenance) section.kind = 4711;
    }
  });
  Repair();
  EXPECT_TRUE(OpenAndVerify(bytes_).ok());
}

TEST_F(SluiceFileTest, PaddingOfTheMetadataIsZero) {
  const auto header = Load<HeaderRecord>(0);
  bytes_[header.metadata_size - 1] = std::byte{1};
  ExpectRefused(ErrorCode::kCorrupt, "padding", "the last byte of the metadata");
}

TEST_F(SluiceFileTest, TensorsThatCannotBe) {
  using Tensor = TensorRecord;
  const uint64_t q = SectionOffset(kSectionTensors) + 2 * sizeof(Tensor);
  struct Fault {
    const char* what;
    std::function<void(Tensor&)> edit;
    ErrorCode code;
  };
  const std::vector<Fault> faults = {
      {"a name out of range", [](Tensor& t) { t.name_offset = 1000; }, ErrorCode::kCorrupt},
      {"a name that wraps", [](Tensor& t) { t.name_offset = ~uint64_t{0}; }, ErrorCode::kCorrupt},
      {"an empty name", [](Tensor& t) { t.name_size = 0; }, ErrorCode::kCorrupt},
      {"an absurd name", [](Tensor& t) { t.name_size = 0xffffffff; }, ErrorCode::kCorrupt},
      {"a name twice",
       [](Tensor& t) {
         t.name_offset = 0;
         t.name_size = 12;
       },
       ErrorCode::kCorrupt},
      {"an unknown kind", [](Tensor& t) { t.kind = 200; }, ErrorCode::kUnsupported},
      {"an unknown offset kind", [](Tensor& t) { t.offset_kind = 3; }, ErrorCode::kUnsupported},
      {"an unknown group size", [](Tensor& t) { t.group_size = 48; }, ErrorCode::kUnsupported},
      {"int4 without groups", [](Tensor& t) { t.group_size = 0; }, ErrorCode::kUnsupported},
      {"another layout", [](Tensor& t) { t.layout_version = 9; }, ErrorCode::kUnsupported},
      {"tiles of no rows", [](Tensor& t) { t.tile_rows = 0; }, ErrorCode::kCorrupt},
      {"tiles of three rows", [](Tensor& t) { t.tile_rows = 3; }, ErrorCode::kCorrupt},
      {"a group that is not there", [](Tensor& t) { t.group = 2; }, ErrorCode::kCorrupt},
      {"the group of others", [](Tensor& t) { t.group = 0; }, ErrorCode::kCorrupt},
      {"no rows", [](Tensor& t) { t.rows = 0; }, ErrorCode::kCorrupt},
      {"no columns", [](Tensor& t) { t.cols = 0; }, ErrorCode::kCorrupt},
      {"more rows than pieces", [](Tensor& t) { t.rows = 53; }, ErrorCode::kCorrupt},
      {"fewer rows than pieces", [](Tensor& t) { t.rows = 36; }, ErrorCode::kCorrupt},
      {"rows whose size wraps", [](Tensor& t) { t.rows = uint64_t{1} << 63; }, ErrorCode::kCorrupt},
      {"columns whose size wraps", [](Tensor& t) { t.cols = ~uint64_t{0}; },
       ErrorCode::kUnsupported},
      {"another width", [](Tensor& t) { t.cols = 2000; }, ErrorCode::kCorrupt},
      {"no pieces", [](Tensor& t) { t.piece_count = 0; }, ErrorCode::kCorrupt},
      {"pieces out of range", [](Tensor& t) { t.piece_count = 99; }, ErrorCode::kCorrupt},
      {"pieces that wrap", [](Tensor& t) { t.first_piece = ~uint64_t{0}; }, ErrorCode::kCorrupt},
      {"the pieces of another", [](Tensor& t) { t.first_piece = 0; }, ErrorCode::kCorrupt},
      {"a reserved field", [](Tensor& t) { t.reserved = 1; }, ErrorCode::kCorrupt},
  };
  for (const Fault& fault : faults) {
    Edit<Tensor>(q, fault.edit);
    ExpectRefused(fault.code, "", fault.what);
  }
}

TEST_F(SluiceFileTest, GroupsAndPiecesThatCannotBe) {
  const uint64_t group = SectionOffset(kSectionGroups) + sizeof(GroupRecord);
  const std::vector<std::pair<const char*, std::function<void(GroupRecord&)>>> group_faults = {
      {"an unknown kind", [](GroupRecord& g) { g.kind = 5; }},
      {"a reserved field", [](GroupRecord& g) { g.reserved = 1; }},
      {"tensors of another", [](GroupRecord& g) { g.first_tensor = 0; }},
      {"no tensors", [](GroupRecord& g) { g.tensor_count = 0; }},
      {"too few tensors", [](GroupRecord& g) { g.tensor_count = 2; }},
      {"tensors out of range", [](GroupRecord& g) { g.tensor_count = 4; }},
      {"tensors that wrap", [](GroupRecord& g) { g.tensor_count = ~uint64_t{0}; }},
      {"another extent", [](GroupRecord& g) { g.offset += 4096; }},
      {"a longer extent", [](GroupRecord& g) { g.size += 4096; }},
  };
  for (const auto& [what, edit] : group_faults) {
    Edit<GroupRecord>(group, edit);
    ExpectRefused(ErrorCode::kCorrupt, "", what);
  }
  const uint64_t piece = SectionOffset(kSectionPieces) + 2 * sizeof(PieceRecord);
  const std::vector<std::pair<const char*, std::function<void(PieceRecord&)>>> piece_faults = {
      {"an overlap", [](PieceRecord& p) { p.offset -= 4096; }},
      {"a gap", [](PieceRecord& p) { p.offset += 4096; }},
      {"an offset beyond the end", [](PieceRecord& p) { p.offset = uint64_t{1} << 60; }},
      {"no size", [](PieceRecord& p) { p.size = 0; }},
      {"a size that is not aligned", [](PieceRecord& p) { p.size -= 1; }},
      {"a size above the bound", [](PieceRecord& p) { p.size = (uint64_t{16} << 20) + 4096; }},
      {"a size that wraps", [](PieceRecord& p) { p.size = ~uint64_t{0} - 4095; }},
      {"another tensor", [](PieceRecord& p) { p.tensor = 0; }},
      {"a tensor that is not there", [](PieceRecord& p) { p.tensor = 4; }},
      {"rows that begin late", [](PieceRecord& p) { p.row_begin = 16; }},
      {"no rows", [](PieceRecord& p) { p.row_count = 0; }},
      {"rows beyond the tensor", [](PieceRecord& p) { p.row_count = 38; }},
      {"rows that wrap", [](PieceRecord& p) { p.row_count = ~uint64_t{0}; }},
      {"another first chunk", [](PieceRecord& p) { p.first_chunk = 0; }},
  };
  for (const auto& [what, edit] : piece_faults) {
    Edit<PieceRecord>(piece, edit);
    ExpectRefused(ErrorCode::kCorrupt, "", what);
  }
}

TEST_F(SluiceFileTest, ConfigurationsThatCannotBe) {
  const auto header = Load<HeaderRecord>(0);
  const SectionRecord config = header.sections[0];
  ASSERT_EQ(config.kind, kSectionConfig);
  for (const char* text : {"", "{", "[]", "{\"architecture\":1}", "null", "{\"hidden_size\":-1}"}) {
    std::fill_n(bytes_.begin() + static_cast<ptrdiff_t>(config.offset), config.size,
                std::byte{' '});
    std::memcpy(bytes_.data() + config.offset, text, std::strlen(text));
    ExpectRefused(ErrorCode::kCorrupt, "", text);
  }
}

TEST(SluiceWriter, NothingStandsUnderTheNameBeforeTheEnd) {
  const ScratchDirectory scratch;
  const std::string path = scratch / "model.sluice";
  {
    Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(path, TinyContents());
    ASSERT_TRUE(writer.ok());
    EXPECT_TRUE(std::filesystem::exists(path + ".partial"));
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(SluiceWriter, AFolderThatIsNotThereIsNamed) {
  const Status status =
      SluiceWriter::Create("/nonexistent-folder/x.sluice", TinyContents()).status();
  EXPECT_EQ(status.code(), ErrorCode::kIo);
  EXPECT_THAT(status.message(), HasSubstr("/nonexistent-folder/x.sluice"));
}

// A disk that is large enough for a file with nothing in it.
class SparseFiles : public FileSystem {
 public:
  int Reserve(int, uint64_t) override {
    errno = EOPNOTSUPP;
    return -1;
  }
  int FreeSpace(int, uint64_t* bytes) override {
    *bytes = uint64_t{1} << 40;
    return 0;
  }
};

TEST(SluiceWriter, ManyTensorsAndMoreThan4GiB) {
  const ScratchDirectory scratch;
  SparseFiles files;
  WriterOptions options;
  options.files = &files;
  SluiceContents contents = TinyContents();
  contents.groups.resize(1);
  for (int i = 0; i < 300; ++i) {
    contents.groups[0].tensors.push_back({"big" + std::to_string(i),
                                          {WeightKind::kF32, WeightOffset::kNone, 0},
                                          kTileRows,
                                          1024,
                                          4096});
  }
  Result<std::unique_ptr<SluiceWriter>> writer =
      SluiceWriter::Create(scratch / "big.sluice", contents, options);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  EXPECT_GT((*writer)->file_size_bytes(), uint64_t{1} << 32);
  const PieceEntry& last = (*writer)->pieces().back();
  EXPECT_EQ(last.offset_bytes + last.size_bytes, (*writer)->file_size_bytes());
  // 1024 x 4096 floats are one piece of 16 MiB.
  EXPECT_EQ((*writer)->pieces().size(), 301u);
  EXPECT_EQ(last.offset_bytes - (*writer)->pieces()[1].offset_bytes, uint64_t{299} << 24);
}

TEST(SluiceWriter, ATensorOfSeveralPiecesIsReadBack) {
  const ScratchDirectory scratch;
  SluiceContents contents = TinyContents();
  contents.groups.resize(1);
  contents.groups[0].tensors = {
      {"wide", {WeightKind::kF32, WeightOffset::kNone, 0}, kTileRows, 1050, 4100}};
  const std::string path = scratch / "wide.sluice";
  Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(path, contents);
  ASSERT_TRUE(writer.ok());
  ASSERT_EQ((*writer)->pieces().size(), 2u);
  for (PieceId id : {1, 0}) {
    ASSERT_TRUE((*writer)->WritePiece(id, PieceContent(**writer, id)).ok());
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_TRUE(OpenAndVerify(ReadBytes(path)).ok());
}

}  // namespace
}  // namespace sluice
