// Text that remembers which of its bytes a user wrote, and what Unicode says about its characters.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_MARKED_STRING_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_MARKED_STRING_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sluice::chat_template {

enum class Origin : uint8_t { kTemplate, kUser };

// UTF-8 text with an origin per byte. Positions are bytes; the functions below find characters.
class MarkedString {
 public:
  // Bytes from the end of the run before to `end`.
  struct Run {
    size_t end;
    Origin origin;
  };

  MarkedString() = default;
  MarkedString(std::string text, Origin origin) : text_(std::move(text)) {
    if (!text_.empty()) runs_.push_back({text_.size(), origin});
  }

  const std::string& text() const { return text_; }
  const std::vector<Run>& runs() const { return runs_; }
  size_t size() const { return text_.size(); }
  bool empty() const { return text_.empty(); }

  // The origin of the byte at `position`; of an empty string or past the end: the template's.
  Origin OriginAt(size_t position) const;

  void Append(std::string_view text, Origin origin);
  void Append(const MarkedString& other) { AppendRange(other, 0, other.size()); }
  // REQUIRES: begin <= end <= other.size(), &other != this.
  void AppendRange(const MarkedString& other, size_t begin, size_t end);

  // Keeps is_html.
  MarkedString Range(size_t begin, size_t end) const;

  // What the filters safe and escape return (markupsafe's Markup): a string that is added to it is
  // escaped first, whether the template's output is HTML or not.
  bool is_html() const { return is_html_; }
  void set_html() { is_html_ = true; }

 private:
  std::string text_;
  std::vector<Run> runs_;  // ends ascend; neighbours differ in origin; the last ends the text
  bool is_html_ = false;
};

// The escapes of HTML, marked as such; text that is HTML already stays.
MarkedString EscapeHtml(const MarkedString& text);

// --- Characters. A byte that is not valid UTF-8 counts as a character of its own.

// Bytes of the character at `position` (< text.size()), 1 to 4.
size_t CharacterBytes(std::string_view text, size_t position);
// The character at `position`; an invalid byte b as U+DC00 + b, as Python's surrogateescape.
char32_t CharacterAt(std::string_view text, size_t position);
size_t CountCharacters(std::string_view text);
// Where character number `index` starts; text.size() if there are fewer.
size_t CharacterOffset(std::string_view text, size_t index);
void AppendUtf8(char32_t character, std::string* text);

// As Python's str methods see them.
bool IsSpace(char32_t character);
bool IsPrintable(char32_t character);
bool IsAlpha(char32_t character);
bool IsDigit(char32_t character);
bool IsUpper(char32_t character);
bool IsLower(char32_t character);

enum class LetterCase { kUpper, kLower, kTitle, kCapitalize, kSwap };
// str.upper(), lower(), title(), capitalize() and swapcase().
MarkedString ChangeCase(const MarkedString& text, LetterCase letter_case);

// Start and end of what str.strip() leaves: without white space if `characters` is null, else
// without the characters in it.
struct StripSides {
  bool left = true;
  bool right = true;
};
MarkedString Strip(const MarkedString& text, const std::string* characters, StripSides sides);

// First position of `needle` at or after `from`, in linear time; npos if there is none.
size_t Find(std::string_view text, std::string_view needle, size_t from = 0);

// Lines as str.splitlines() cuts them, as byte ranges; with their ends if `keep_ends`.
std::vector<std::pair<size_t, size_t>> SplitLines(std::string_view text, bool keep_ends);

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_MARKED_STRING_H_
