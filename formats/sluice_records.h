// The fixed-size records of a .sluice file as they lie in it (FORMAT.md): little-endian, no holes.
// Shared by the reader and the writer, nobody else.
#ifndef SLUICE_FORMATS_SLUICE_RECORDS_H_
#define SLUICE_FORMATS_SLUICE_RECORDS_H_

#include <bit>
#include <cstddef>
#include <cstdint>

namespace sluice {

static_assert(std::endian::native == std::endian::little, "records are used as they lie");

inline constexpr unsigned char kSluiceMagic[8] = {0x89, 'S', 'L', 'U', 'I', 'C', 'E', '\n'};
inline constexpr uint32_t kSluiceVersion = 1;
inline constexpr uint64_t kSluiceHeaderBytes = 512;
// Set in a file that has tensors of the kinds 5 to 8.
inline constexpr uint64_t kSluiceFeatureGgufTypes = 1;
inline constexpr uint64_t kSluiceRequiredFeatures = kSluiceFeatureGgufTypes;  // known here
inline constexpr uint16_t kSluiceLayoutVersion = 1;
inline constexpr uint32_t kMaxSections = 16;
inline constexpr uint64_t kSluiceMaxNameBytes = 1024;

enum SectionKind : uint32_t {
  kSectionConfig = 1,
  kSectionTokenizer = 2,
  kSectionChatTemplate = 3,
  kSectionNames = 4,
  kSectionTensors = 5,
  kSectionGroups = 6,
  kSectionPieces = 7,
  kSectionChunkHashes = 8,
  kSectionProvenance = 9,
};

struct SectionRecord {
  uint32_t kind;
  uint32_t reserved;
  uint64_t offset;
  uint64_t size;
};

struct HeaderRecord {
  unsigned char magic[8];
  uint32_t version;
  uint32_t header_size;
  uint64_t required_features;
  uint64_t optional_features;
  uint64_t file_size;
  uint64_t metadata_size;
  uint64_t metadata_hash;
  uint32_t alignment;
  uint32_t chunk_size;
  uint32_t section_count;
  uint32_t reserved;
  SectionRecord sections[kMaxSections];
  unsigned char reserved_tail[48];
  uint64_t header_hash;
};
static_assert(sizeof(HeaderRecord) == kSluiceHeaderBytes);
static_assert(offsetof(HeaderRecord, header_hash) == 504);

struct TensorRecord {
  uint64_t name_offset;
  uint32_t name_size;
  uint8_t kind;
  uint8_t offset_kind;
  uint16_t group_size;
  uint16_t layout_version;
  uint16_t tile_rows;
  uint32_t group;
  uint64_t rows;
  uint64_t cols;
  uint64_t first_piece;
  uint64_t piece_count;
  uint64_t reserved;
};
static_assert(sizeof(TensorRecord) == 64);

struct GroupRecord {
  uint32_t kind;
  uint32_t layer;
  uint32_t expert;
  uint32_t reserved;
  uint64_t first_tensor;
  uint64_t tensor_count;
  uint64_t offset;
  uint64_t size;
};
static_assert(sizeof(GroupRecord) == 48);

struct PieceRecord {
  uint64_t offset;
  uint64_t size;
  uint64_t tensor;
  uint64_t row_begin;
  uint64_t row_count;
  uint64_t first_chunk;
};
static_assert(sizeof(PieceRecord) == 48);

}  // namespace sluice

#endif  // SLUICE_FORMATS_SLUICE_RECORDS_H_
