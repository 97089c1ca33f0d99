// The byte alphabet of GPT-2: each byte has a printable character, and vocabularies of byte-level
// BPE spell their tokens with it (a space is U+0120). Bytes 0x21..0x7E, 0xA1..0xAC, 0xAE..0xFF
// stand for themselves; the other 68 are U+0100.. in ascending order.
#ifndef SLUICE_LOADERS_TOKENIZER_BYTE_LEVEL_H_
#define SLUICE_LOADERS_TOKENIZER_BYTE_LEVEL_H_

#include <optional>
#include <string>
#include <string_view>

namespace sluice {

// Appends the spelling of raw bytes.
void AppendByteLevel(std::string_view bytes, std::string* out);

// The bytes that `spelling` (valid UTF-8) stands for; nullopt if a character is not of the
// alphabet.
std::optional<std::string> BytesOfByteLevel(std::string_view spelling);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_BYTE_LEVEL_H_
