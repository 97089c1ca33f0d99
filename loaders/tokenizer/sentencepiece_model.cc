// The protocol buffer of tokenizer.model: only the fields that tokens depend on.
#include <bit>
#include <optional>
#include <string>
#include <utility>

#include "loaders/tokenizer/sentencepiece_fields.h"

namespace sluice {
namespace {

Status Corrupt(std::string what) { return Status(ErrorCode::kCorrupt, std::move(what)); }
Status Unsupported(std::string what) { return Status(ErrorCode::kUnsupported, std::move(what)); }

// One field of a message: protobuf.dev/programming-guides/encoding.
struct Field {
  uint64_t number = 0;
  enum class Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 } wire = Wire::kVarint;
  uint64_t value = 0;      // kVarint, and the bits of the fixed ones
  std::string_view bytes;  // kBytes
};

class MessageReader {
 public:
  explicit MessageReader(std::string_view message) : in_(message) {}

  // False at the end.
  Result<bool> Next(Field* field) {
    if (at_ == in_.size()) return false;
    uint64_t tag = 0;
    if (!Varint(&tag)) return Corrupt("varint");
    *field = {};
    field->number = tag >> 3;
    if (field->number == 0) return Corrupt("field 0");
    switch (tag & 7) {
      case 0:
        if (!Varint(&field->value)) return Corrupt("varint");
        return true;
      case 1:
        field->wire = Field::Wire::kFixed64;
        return Fixed(8, field);
      case 5:
        field->wire = Field::Wire::kFixed32;
        return Fixed(4, field);
      case 2: {
        field->wire = Field::Wire::kBytes;
        uint64_t size = 0;
        if (!Varint(&size)) return Corrupt("varint");
        if (size > in_.size() - at_) return Corrupt("a field reaches beyond its message");
        field->bytes = in_.substr(at_, static_cast<size_t>(size));
        at_ += static_cast<size_t>(size);
        return true;
      }
      default:
        return Corrupt("wire type " + std::to_string(tag & 7));
    }
  }

 private:
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == in_.size()) return false;
      const auto byte = static_cast<uint8_t>(in_[at_++]);
      if (shift == 63 && byte > 1) return false;
      *value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  Result<bool> Fixed(size_t size, Field* field) {
    if (in_.size() - at_ < size) return Corrupt("truncated number");
    for (size_t i = 0; i < size; ++i) {
      field->value |= uint64_t{static_cast<uint8_t>(in_[at_ + i])} << (8 * i);
    }
    at_ += size;
    return true;
  }

  std::string_view in_;
  size_t at_ = 0;
};

// Calls read(field) for each field of a message.
template <typename Read>
Status ForEachField(std::string_view message, Read read) {
  MessageReader reader(message);
  Field field;
  while (true) {
    Result<bool> more = reader.Next(&field);
    if (!more.ok()) return more.status();
    if (!*more) return {};
    if (Status s = read(field); !s.ok()) return s;
  }
}

Status WantWire(const Field& field, Field::Wire wire) {
  if (field.wire == wire) return {};
  return Corrupt("wire type of field " + std::to_string(field.number));
}

Status ReadPiece(std::string_view message, SentencePieceFields* fields) {
  SentencePieceFields::Piece piece;
  Status s = ForEachField(message, [&piece](const Field& field) -> Status {
    switch (field.number) {
      case 1:
        piece.text = field.bytes;
        return WantWire(field, Field::Wire::kBytes);
      case 2:
        piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
        return WantWire(field, Field::Wire::kFixed32);
      case 3:
        if (field.value < 1 || field.value > 6) return Corrupt("type");
        piece.type = static_cast<int32_t>(field.value);
        return WantWire(field, Field::Wire::kVarint);
      default:
        return {};
    }
  });
  if (!s.ok()) return s.WithContext("piece " + std::to_string(fields->pieces.size()));
  fields->pieces.push_back(piece);
  return {};
}

// int32 is sent as a varint of 64 bits, negative numbers with all upper bits.
Status ReadId(const Field& field, int64_t* id) {
  *id = static_cast<int64_t>(field.value);
  if (*id < -1 || *id > INT32_MAX) return Corrupt("id in field " + std::to_string(field.number));
  return WantWire(field, Field::Wire::kVarint);
}

Status ReadTrainer(std::string_view message, SentencePieceFields* fields) {
  return ForEachField(message, [fields](const Field& field) -> Status {
    switch (field.number) {
      case 3:
        if (field.value != 1 && field.value != 2) {
          return Unsupported("model type " + std::to_string(field.value) +
                             ", neither unigram nor BPE");
        }
        fields->unigram = field.value == 1;
        return WantWire(field, Field::Wire::kVarint);
      case 24:
        return field.value == 0 ? Status() : Unsupported("treat_whitespace_as_suffix");
      case 35:
        fields->byte_fallback = field.value != 0;
        return WantWire(field, Field::Wire::kVarint);
      case 40:
        return ReadId(field, &fields->unknown_id);
      case 41:
        return ReadId(field, &fields->bos_id);
      case 42:
        return ReadId(field, &fields->eos_id);
      default:
        return {};
    }
  });
}

Status ReadNormalizer(std::string_view message, SentencePieceFields* fields) {
  return ForEachField(message, [fields](const Field& field) -> Status {
    switch (field.number) {
      case 2:
        fields->precompiled_charsmap = field.bytes;
        return WantWire(field, Field::Wire::kBytes);
      case 3:
        fields->add_dummy_prefix = field.value != 0;
        return WantWire(field, Field::Wire::kVarint);
      case 4:
        fields->remove_extra_whitespaces = field.value != 0;
        return WantWire(field, Field::Wire::kVarint);
      case 5:
        fields->escape_whitespaces = field.value != 0;
        return WantWire(field, Field::Wire::kVarint);
      default:
        return {};
    }
  });
}

// A denormalizer with a map changes the decoded text.
Status CheckDenormalizer(std::string_view message) {
  return ForEachField(message, [](const Field& field) {
    return field.number == 2 && !field.bytes.empty() ? Unsupported("denormalizer") : Status();
  });
}

}  // namespace

Result<SentencePieceFields> ParseSentencePieceModel(std::string_view bytes) {
  SentencePieceFields fields;
  // A piece takes about three times as much here, while the list grows; files have more for each.
  const size_t max_pieces = bytes.size() / 8 + 512;
  Status s = ForEachField(bytes, [&](const Field& field) -> Status {
    if (field.number < 1 || field.number > 5 || field.number == 4) return {};
    if (Status wire = WantWire(field, Field::Wire::kBytes); !wire.ok()) return wire;
    if (field.number == 1 && fields.pieces.size() >= max_pieces) {
      return Status(ErrorCode::kLimitExceeded, "too many pieces for the size of the file");
    }
    if (field.number == 1) return ReadPiece(field.bytes, &fields);
    if (field.number == 2) return ReadTrainer(field.bytes, &fields);
    if (field.number == 3) return ReadNormalizer(field.bytes, &fields);
    return CheckDenormalizer(field.bytes);
  });
  if (!s.ok()) return s;
  if (fields.pieces.empty()) return Corrupt("no pieces");
  return fields;
}

}  // namespace sluice
