// .sluice files that are wrong, through the program: damage, and contradictions under right
// checksums. tests/formats/sluice_file_test.cc has more of them.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "formats/sluice_file.h"
#include "formats/sluice_records.h"
#include "tests/support/bad_file.h"
#include "tests/support/foreign_files.h"
#include "tests/support/program.h"

namespace sluice {
namespace {

template <typename Record>
Record Load(const std::string& bytes, uint64_t offset) {
  Record record;
  std::memcpy(&record, bytes.data() + offset, sizeof(record));
  return record;
}

uint64_t SectionOffset(const std::string& bytes, uint32_t kind) {
  const auto header = Load<HeaderRecord>(bytes, 0);
  for (const SectionRecord& section : header.sections) {
    if (section.kind == kind) return section.offset;
  }
  ADD_FAILURE() << "no section " << kind;
  return 0;
}

template <typename Record>
constexpr uint32_t kSectionOf = 0;
template <>
constexpr uint32_t kSectionOf<TensorRecord> = kSectionTensors;
template <>
constexpr uint32_t kSectionOf<GroupRecord> = kSectionGroups;
template <>
constexpr uint32_t kSectionOf<PieceRecord> = kSectionPieces;

// Header and metadata agree with their checksums again.
void Repair(std::string* bytes) {
  auto header = Load<HeaderRecord>(*bytes, 0);
  if (header.metadata_size >= kSluiceHeaderBytes && header.metadata_size <= bytes->size()) {
    header.metadata_hash = HashBytes(
        BytesOf(*bytes).subspan(kSluiceHeaderBytes, header.metadata_size - kSluiceHeaderBytes));
  }
  header.header_hash = HashBytes(std::as_bytes(std::span(&header, 1)).first(504));
  std::memcpy(bytes->data(), &header, sizeof(header));
}

// Spoils the header, or record 1 of a table.
template <typename Record>
BadFile Bad(const char* name, int exit_code, const char* code, const char* message,
            void (*change)(Record*)) {
  return {name,
          [change] {
            std::string bytes = ReadTestFile(GoldenModel());
            uint64_t offset = 0;
            if constexpr (!std::is_same_v<Record, HeaderRecord>) {
              offset = SectionOffset(bytes, kSectionOf<Record>) + sizeof(Record);
            }
            auto record = Load<Record>(bytes, offset);
            change(&record);
            std::memcpy(bytes.data() + offset, &record, sizeof(record));
            Repair(&bytes);
            return bytes;
          },
          exit_code, code, message};
}

BadFile BadBytes(const char* name, const char* code, const char* message,
                 void (*change)(std::string*)) {
  return {name,
          [change] {
            std::string bytes = ReadTestFile(GoldenModel());
            change(&bytes);
            return bytes;
          },
          1, code, message};
}

// Replaces the configuration, and pads it with spaces.
BadFile BadConfig(const char* name, int exit_code, const char* code, const char* message,
                  const std::string& from, const std::string& to) {
  return {name,
          [from, to] {
            std::string bytes = ReadTestFile(GoldenModel());
            const auto header = Load<HeaderRecord>(bytes, 0);
            std::string config = bytes.substr(header.sections[0].offset, header.sections[0].size);
            const size_t at = config.find(from);
            EXPECT_NE(at, std::string::npos) << from;
            config.replace(at, from.size(), to);
            EXPECT_LE(config.size(), header.sections[0].size);
            config.resize(header.sections[0].size, ' ');
            bytes.replace(header.sections[0].offset, config.size(), config);
            Repair(&bytes);
            return bytes;
          },
          exit_code, code, message};
}

using Header = HeaderRecord;
using Tensor = TensorRecord;
using Group = GroupRecord;
using Piece = PieceRecord;
constexpr uint64_t kHuge = uint64_t{1} << 62;

const BadFile kBadFiles[] = {
    BadBytes("Empty", "truncated", "0 bytes are less than a header of 512",
             [](std::string* b) { b->clear(); }),
    BadBytes("MagicAlone", "truncated", "8 bytes are less than a header of 512",
             [](std::string* b) { b->resize(8); }),
    BadBytes("HeaderAlone", "truncated", "512 bytes of 192512 are there",
             [](std::string* b) { b->resize(512); }),
    BadBytes("MetadataCut", "truncated", "4096 bytes of 192512 are there",
             [](std::string* b) { b->resize(4096); }),
    BadBytes("LastByteMissing", "truncated", "192511 bytes of 192512 are there",
             [](std::string* b) { b->pop_back(); }),
    BadBytes("OneByteMore", "corrupt", "1 bytes follow the end at offset 192512",
             [](std::string* b) { b->push_back('\0'); }),
    BadBytes("MagicSentAsText", "corrupt", "not a .sluice file (no magic at offset 0)",
             [](std::string* b) { b->erase(7, 1); }),
    BadBytes("HeaderFlipped", "corrupt", "checksum of the header at offset 0 is wrong",
             [](std::string* b) { (*b)[100] ^= 1; }),
    BadBytes("MetadataFlipped", "corrupt", "checksum of the metadata at offset 512 is wrong",
             [](std::string* b) { (*b)[600] ^= 1; }),
    BadBytes("VersionFlipped", "corrupt", "checksum of the header at offset 0 is wrong",
             [](std::string* b) { (*b)[8] ^= 2; }),
    Bad<Header>("Version2", 3, "unsupported", "format version 2; this program reads version 1",
                [](Header* h) { h->version = 2; }),
    Bad<Header>("RequiredFeature", 3, "unsupported",
                "requires features 0x2 that this program does not know",
                [](Header* h) { h->required_features = 2; }),
    Bad<Header>("FileSizeOf2To62", 1, "truncated", "192512 bytes of 4611686018427387904 are there",
                [](Header* h) { h->file_size = kHuge; }),
    Bad<Header>("MetadataOf2To62", 1, "corrupt",
                "metadata of 4611686018427387904 bytes in a file of 192512",
                [](Header* h) { h->metadata_size = kHuge; }),
    Bad<Header>("NoSections", 1, "corrupt", "unused section 0 is not zero",
                [](Header* h) { h->section_count = 0; }),
    Bad<Header>("TooManySections", 1, "corrupt", "header at offset 0 has a field out of range",
                [](Header* h) { h->section_count = 17; }),
    Bad<Header>("SectionOf2To62", 1, "corrupt",
                "section 2 (kind 3) of 4611686018427387904 bytes at offset 3176",
                [](Header* h) { h->sections[2].size = kHuge; }),
    Bad<Header>("SectionTwice", 1, "corrupt", "section kind 1 is there twice",
                [](Header* h) { h->sections[1].kind = 1; }),
    Bad<Tensor>("NameOutOfRange", 1, "corrupt", "name of tensor 1 is out of range",
                [](Tensor* t) { t->name_offset = kHuge; }),
    Bad<Tensor>("NameOf4GiB", 1, "corrupt", "name of tensor 1 is out of range",
                [](Tensor* t) { t->name_size = UINT32_MAX; }),
    Bad<Tensor>("UnknownType", 3, "unsupported",
                "tensor 'layers.0.attn.q.weight': type 99/0/0 is not known",
                [](Tensor* t) { t->kind = 99; }),
    Bad<Tensor>("UnknownLayout", 3, "unsupported",
                "tensor 'layers.0.attn.q.weight': layout version 7 is not known",
                [](Tensor* t) { t->layout_version = 7; }),
    Bad<Tensor>("RowsOf2To62", 1, "corrupt", "tensor 'layers.0.attn.q.weight': the size of",
                [](Tensor* t) { t->rows = kHuge; }),
    Bad<Tensor>("NoColumns", 1, "corrupt",
                "tensor 'layers.0.attn.q.weight': a tensor of 64 x 0 in tiles of",
                [](Tensor* t) { t->cols = 0; }),
    Bad<Tensor>("TilesOf5Rows", 1, "corrupt",
                "tensor 'layers.0.attn.q.weight': a tensor of 64 x 64 in tiles",
                [](Tensor* t) { t->tile_rows = 5; }),
    Bad<Tensor>("PiecesOfAnother", 1, "corrupt",
                "tensor 'layers.0.attn.q.weight': its pieces are not the next",
                [](Tensor* t) { t->first_piece = 0; }),
    Bad<Tensor>("PiecesOf2To62", 1, "corrupt",
                "tensor 'layers.0.attn.q.weight': its pieces are out of range",
                [](Tensor* t) { t->piece_count = kHuge; }),
    Bad<Tensor>("GroupThatIsNotThere", 1, "corrupt",
                "tensor 'layers.0.attn.q.weight': group 1000 does not exist",
                [](Tensor* t) { t->group = 1000; }),
    Bad<Group>("UnknownGroup", 1, "corrupt", "group 1 has a field out of range",
               [](Group* g) { g->kind = 77; }),
    Bad<Group>("GroupOfNothing", 1, "corrupt", "group 1 has a field out of range",
               [](Group* g) { g->tensor_count = 0; }),
    Bad<Group>("GroupElsewhere", 1, "corrupt", "extent of group 1 is not that of its pieces",
               [](Group* g) { g->offset += 4096; }),
    Bad<Piece>("PieceOverlaps", 1, "corrupt",
               "piece 1 of 8192 bytes at offset 8192 is out of place",
               [](Piece* p) { p->offset -= 4096; }),
    Bad<Piece>("PieceBeyondTheEnd", 1, "corrupt",
               "piece 1 of 8192 bytes at offset 4611686018427387904 is out of",
               [](Piece* p) { p->offset = kHuge; }),
    Bad<Piece>("PieceOfNothing", 1, "corrupt", "piece 1 of 0 bytes at offset 12288 is out of place",
               [](Piece* p) { p->size = 0; }),
    Bad<Piece>("PieceWithRowsTooMany", 1, "corrupt",
               "tensor 'layers.0.attn.q.weight': the piece at offset 12288 does",
               [](Piece* p) { p->row_count = kHuge; }),
    Bad<Piece>("PieceOfNoTensor", 1, "corrupt",
               "piece 1 of 8192 bytes at offset 12288 is out of place",
               [](Piece* p) { p->tensor = kHuge; }),
    Bad<Piece>("PieceWithOtherHashes", 1, "corrupt",
               "piece 1 of 8192 bytes at offset 12288 is out of place",
               [](Piece* p) { p->first_chunk = kHuge; }),
    BadConfig("ConfigUnclosed", 1, "corrupt",
              "model configuration: not valid UTF-8 JSON near byte 533", "}", " "),
    BadConfig("ConfigOfNoLayers", 1, "corrupt",
              "model configuration: num_layers is 0, not between 1 and 4096", "\"num_layers\":2",
              "\"num_layers\":0"),
    BadConfig("ConfigOfNumberForFlag", 1, "corrupt",
              "model configuration: tie_embeddings is not true or false", "\"tie_embeddings\":true",
              "\"tie_embeddings\":1"),
};

class BadSluice : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadSluice, VerifySaysWhatIsWrongInOneLine) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "m.sluice", GetParam().bytes());
  ExpectOneLineOfError({"verify", scratch / "m.sluice"}, "m.sluice", GetParam());
}

INSTANTIATE_TEST_SUITE_P(Files, BadSluice, ::testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return info.param.name; });

// Files that are whole, with a model that this program cannot run.
const BadFile kModels[] = {
    BadConfig("UnknownArchitecture", 3, "unsupported",
              "architecture 'hyena' is not supported; supported: llama", "\"llama\"", "\"hyena\""),
    BadConfig("AnotherVocabulary", 1, "corrupt", "the tokenizer has 307 tokens, the model 306",
              "\"vocab_size\":307", "\"vocab_size\":306"),
    BadConfig("ALayerMore", 1, "corrupt", "tensor 'layers.2.attn_norm.weight' is missing",
              "\"num_layers\":2", "\"num_layers\":3"),
    BadConfig("AnotherWidth", 1, "corrupt",
              "tensor 'layers.0.ffn.gate.weight' is 96 x 64 bf16 in tiles of",
              "\"intermediate_size\":96", "\"intermediate_size\":95"),
};

class BadModel : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadModel, RunSaysWhatIsWrongInOneLine) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "m.sluice", GetParam().bytes());
  ExpectOneLineOfError({"run", scratch / "m.sluice", "-p", "x", "-n", "1"}, "m.sluice", GetParam());
}

INSTANTIATE_TEST_SUITE_P(Files, BadModel, ::testing::ValuesIn(kModels),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
