#define PCRE2_CODE_UNIT_WIDTH 8
#include "loaders/tokenizer/regex.h"

#include <pcre2.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "loaders/tokenizer/regex_syntax.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

// What has a few hundred bytes in tokenizers.
constexpr size_t kMaxPatternBytes = 4096;
constexpr uint32_t kNestLimit = 128;
constexpr uint32_t kDepthLimit = 1 << 20;
constexpr uint32_t kHeapLimitKib = 256 * 1024;
constexpr uint64_t kMatchLimitBase = 10'000'000;
constexpr uint64_t kMatchLimitPerByte = 32;

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[160];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return std::to_string(code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Regex::Compiled {
  Compiled(pcre2_code* c, size_t size) : code(c), size_bytes(size) {}
  ~Compiled() { pcre2_code_free(code); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  pcre2_code* code;
  size_t size_bytes;
};

size_t Regex::size_bytes() const { return compiled_->size_bytes; }

Result<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return Status(ErrorCode::kUnsupported, "regular expression of more than 4 KiB");
  }
  Result<std::string> translated = TranslateOniguruma(pattern);
  if (!translated.ok()) return translated.status();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) return Status(ErrorCode::kOutOfMemory, "regular expression");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_bsr(context, PCRE2_BSR_UNICODE);
  pcre2_set_parens_nest_limit(context, kNestLimit);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    return Status(ErrorCode::kUnsupported,
                  "regular expression '" + std::string(pattern) + "': " + PcreMessage(error));
  }
  size_t size_bytes = 0;
  (void)pcre2_pattern_info(code, PCRE2_INFO_SIZE, &size_bytes);
  auto compiled = std::make_shared<const Compiled>(code, size_bytes);
  if (size_bytes > kMaxRegexBytes) {
    return Status(ErrorCode::kLimitExceeded, "regular expression that becomes too large");
  }
  // Where executable memory is forbidden this fails, and pcre2_match interprets instead.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Regex(std::move(compiled));
}

struct RegexScanner::State {
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  const pcre2_code* code = nullptr;
  std::string_view text;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  size_t from = 0;
  size_t last_end = std::numeric_limits<size_t>::max();
};

RegexScanner::RegexScanner(const Regex& regex, std::string_view text)
    : state_(std::make_unique<State>()) {
  state_->code = regex.compiled().code;
  state_->text = text;
  state_->data = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  if (state_->context == nullptr) return;
  // Backtracking over a long run costs a few steps for each byte; anything far above that is a
  // pathological expression.
  const uint64_t limit = kMatchLimitBase + kMatchLimitPerByte * text.size();
  pcre2_set_match_limit(state_->context, static_cast<uint32_t>(std::min<uint64_t>(
                                             limit, std::numeric_limits<uint32_t>::max())));
  pcre2_set_depth_limit(state_->context, kDepthLimit);
  pcre2_set_heap_limit(state_->context, kHeapLimitKib);
}

RegexScanner::~RegexScanner() = default;

Result<bool> RegexScanner::Next(RegexMatch* match) {
  State& s = *state_;
  if (s.data == nullptr || s.context == nullptr) {
    return Status(ErrorCode::kOutOfMemory, "regular expression match");
  }
  while (s.from <= s.text.size()) {
    // A null subject is an error even if it is empty.
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(s.text.empty() ? "" : s.text.data());
    int rc =
        pcre2_match(s.code, subject, s.text.size(), s.from, PCRE2_NO_UTF_CHECK, s.data, s.context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(s.code, subject, s.text.size(), s.from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       s.data, s.context);
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return Status(ErrorCode::kLimitExceeded, "regular expression at byte " +
                                                   std::to_string(s.from) + ": " + PcreMessage(rc));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(s.data);
    if (range[0] > range[1] || range[0] < s.from) {  // \K in a lookaround
      return Status(ErrorCode::kUnsupported, "regular expression that matches backwards");
    }
    if (range[0] == range[1] && range[1] == s.last_end) {
      size_t length = 1;
      if (s.from < s.text.size()) Utf8At(s.text, s.from, &length);
      s.from += length;
      continue;
    }
    *match = {range[0], range[1]};
    s.from = s.last_end = range[1];
    return true;
  }
  s.from = s.text.size() + 1;
  return false;
}

}  // namespace sluice
