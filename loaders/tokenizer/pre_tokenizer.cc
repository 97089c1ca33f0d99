#include "loaders/tokenizer/pre_tokenizer.h"

#include <utility>

#include "loaders/tokenizer/byte_level.h"
#include "loaders/tokenizer/unicode.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

using Piece = PreTokenizedText::Piece;
using Part = PreTokenizedText::Part;

// The expression of GPT-2, which ByteLevel applies itself if it is told to.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class PartList {
 public:
  PartList(size_t begin, size_t end, std::vector<Part>* parts)
      : at_(begin), end_(end), parts_(parts) {
    parts_->clear();
  }
  void Match(size_t begin, size_t end) {
    if (at_ < begin) parts_->push_back({at_, begin, false});
    parts_->push_back({begin, end, true});
    at_ = end;
  }
  void Finish() {
    if (at_ < end_) parts_->push_back({at_, end_, false});
  }

 private:
  size_t at_;
  size_t end_;
  std::vector<Part>* parts_;
};

Status FindRegex(const Regex& regex, std::string_view text, size_t base, PartList* list) {
  RegexScanner scanner(regex, text);
  RegexMatch match;
  while (true) {
    Result<bool> found = scanner.Next(&match);
    if (!found.ok()) return found.status();
    if (!*found) return {};
    list->Match(base + match.begin, base + match.end);
  }
}

void FindLiteral(std::string_view pattern, std::string_view text, size_t base, PartList* list) {
  for (size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, at + pattern.size())) {
    list->Match(base + at, base + at + pattern.size());
  }
}

template <typename Predicate>
void FindCharacters(Predicate predicate, std::string_view text, size_t base, PartList* list) {
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    if (predicate(Utf8At(text, at, &length))) list->Match(base + at, base + at + length);
    at += length;
  }
}

void AppendPiece(Piece piece, std::vector<Piece>* out) {
  if (piece.begin < piece.end) out->push_back(piece);
}

void MergeWithPrevious(const std::vector<Part>& parts, std::vector<Piece>* out) {
  bool previous = false;
  std::optional<Piece> last;
  for (const Part& part : parts) {
    if (part.is_match && !previous && last) {
      last->end = part.end;
    } else {
      if (last) AppendPiece(*last, out);
      last = Piece{part.begin, part.end};
    }
    previous = part.is_match;
  }
  if (last) AppendPiece(*last, out);
}

void MergeWithNext(const std::vector<Part>& parts, std::vector<Piece>* out) {
  // Decided from the end: a match joins what follows it unless that is a match too.
  std::vector<Piece> merged;
  bool previous = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->is_match && !previous && !merged.empty()) {
      merged.back().begin = part->begin;
    } else {
      merged.push_back({part->begin, part->end});
    }
    previous = part->is_match;
  }
  for (auto piece = merged.rbegin(); piece != merged.rend(); ++piece) AppendPiece(*piece, out);
}

void MergeContiguous(const std::vector<Part>& parts, std::vector<Piece>* out) {
  for (size_t i = 0; i < parts.size();) {
    size_t last = i;
    while (last + 1 < parts.size() && parts[last + 1].is_match == parts[i].is_match) ++last;
    AppendPiece({parts[i].begin, parts[last].end}, out);
    i = last + 1;
  }
}

void Arrange(const std::vector<Part>& parts, SplitBehavior behavior, std::vector<Piece>* out) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
    case SplitBehavior::kIsolated:
      for (const Part& part : parts) {
        if (part.is_match && behavior == SplitBehavior::kRemoved) continue;
        AppendPiece({part.begin, part.end}, out);
      }
      return;
    case SplitBehavior::kMergedWithPrevious:
      return MergeWithPrevious(parts, out);
    case SplitBehavior::kMergedWithNext:
      return MergeWithNext(parts, out);
    case SplitBehavior::kContiguous:
      return MergeContiguous(parts, out);
  }
}

// Puts a space before each piece that has none.
void AddPrefixSpaces(PreTokenizedText* text) {
  std::string spaced;
  spaced.reserve(text->text.size() + text->pieces.size());
  for (Piece& piece : text->pieces) {
    const std::string_view view = text->View(piece);
    const size_t begin = spaced.size();
    if (!view.starts_with(' ')) spaced.push_back(' ');
    spaced.append(view);
    piece = {begin, spaced.size()};
  }
  text->text = std::move(spaced);
}

void SpellInByteAlphabet(PreTokenizedText* text) {
  std::string spelled;
  spelled.reserve(text->text.size() + text->text.size() / 4);
  for (Piece& piece : text->pieces) {
    const size_t begin = spelled.size();
    AppendByteLevel(text->View(piece), &spelled);
    piece = {begin, spelled.size()};
  }
  text->text = std::move(spelled);
}

// Puts the character of Metaspace where spaces are, and before pieces as it is told.
void SpellSpaces(const PreTokenizerStep& step, bool at_start, PreTokenizedText* text) {
  std::string spelled;
  spelled.reserve(text->text.size() + text->text.size() / 2);
  for (Piece& piece : text->pieces) {
    const std::string_view view = text->View(piece);
    const size_t begin = spelled.size();
    const bool starts = view.starts_with(step.pattern) || view.starts_with(' ');
    const bool first = at_start && piece.begin == 0;
    if (!starts && (step.prepend == PrependScheme::kAlways ||
                    (step.prepend == PrependScheme::kFirst && first))) {
      spelled += step.pattern;
    }
    for (const char c : view) {
      if (c == ' ') {
        spelled += step.pattern;
      } else {
        spelled.push_back(c);
      }
    }
    piece = {begin, spelled.size()};
  }
  text->text = std::move(spelled);
}

}  // namespace

Result<PreTokenizer> PreTokenizer::Create(const std::vector<PreTokenizerStep>& steps,
                                          bool byte_level) {
  PreTokenizer pre_tokenizer;
  int byte_level_steps = 0;
  size_t regex_bytes = 0;
  for (const PreTokenizerStep& spec : steps) {
    Step step{spec, std::nullopt};
    std::string_view pattern;
    if (spec.kind == PreTokenizerStep::Kind::kSplit) {
      if (spec.pattern.empty()) {
        return Status(ErrorCode::kUnsupported, "pre-tokenizer Split with an empty pattern");
      }
      if (spec.pattern_is_regex) pattern = spec.pattern;
    }
    if (spec.kind == PreTokenizerStep::Kind::kMetaspace && spec.pattern.empty()) {
      return Status(ErrorCode::kCorrupt, "pre-tokenizer Metaspace without its character");
    }
    if (spec.kind == PreTokenizerStep::Kind::kByteLevel) {
      ++byte_level_steps;
      if (spec.use_regex) pattern = kGpt2Pattern;
    }
    if (!pattern.empty()) {
      Result<Regex> regex = Regex::Compile(pattern);
      if (!regex.ok()) return regex.status().WithContext("pre-tokenizer");
      step.regex = *std::move(regex);
      regex_bytes += step.regex->size_bytes();
      if (regex_bytes > kMaxRegexBytes) {
        return Status(ErrorCode::kLimitExceeded, "pre-tokenizer with too many expressions");
      }
    }
    pre_tokenizer.steps_.push_back(std::move(step));
  }
  const int wanted = byte_level ? 1 : 0;
  if (byte_level_steps != wanted) {
    return Status(ErrorCode::kUnsupported,
                  "pre-tokenizer with " + std::to_string(byte_level_steps) +
                      " ByteLevel steps instead of " + std::to_string(wanted));
  }
  return pre_tokenizer;
}

Status PreTokenizer::FindParts(const Step& step, std::string_view view, size_t base,
                               std::vector<PreTokenizedText::Part>* parts) {
  using Kind = PreTokenizerStep::Kind;
  PartList list(base, base + view.size(), parts);
  if (step.regex) {
    if (Status s = FindRegex(*step.regex, view, base, &list); !s.ok()) return s;
  } else if (step.spec.kind == Kind::kSplit || step.spec.kind == Kind::kMetaspace) {
    FindLiteral(step.spec.pattern, view, base, &list);
  } else if (step.spec.kind == Kind::kDigits) {
    FindCharacters(IsNumeric, view, base, &list);
  } else if (step.spec.kind == Kind::kWhitespaceSplit) {
    FindCharacters(IsWhiteSpace, view, base, &list);
  } else {
    FindCharacters(IsPunctuation, view, base, &list);
  }
  list.Finish();
  if (step.spec.invert) {
    for (Part& part : *parts) part.is_match = !part.is_match;
  }
  return {};
}

Status PreTokenizer::ApplyStep(const Step& step, bool at_start, PreTokenizedText* text) {
  using Kind = PreTokenizerStep::Kind;
  const PreTokenizerStep& spec = step.spec;
  if (spec.kind == Kind::kByteLevel && spec.add_prefix_space) AddPrefixSpaces(text);
  if (spec.kind == Kind::kMetaspace) SpellSpaces(spec, at_start, text);
  const bool splits = spec.kind == Kind::kByteLevel   ? step.regex.has_value()
                      : spec.kind == Kind::kMetaspace ? spec.split_words
                                                      : true;
  SplitBehavior behavior = spec.behavior;
  if (spec.kind == Kind::kByteLevel) behavior = SplitBehavior::kIsolated;
  if (spec.kind == Kind::kMetaspace) behavior = SplitBehavior::kMergedWithNext;
  if (spec.kind == Kind::kWhitespaceSplit) behavior = SplitBehavior::kRemoved;
  if (splits) {
    std::vector<Piece> pieces;
    std::vector<Part> parts;
    for (const Piece& piece : text->pieces) {
      Status s = FindParts(step, text->View(piece), piece.begin, &parts);
      if (!s.ok()) return s;
      Arrange(parts, behavior, &pieces);
    }
    text->pieces = std::move(pieces);
  }
  if (spec.kind == Kind::kByteLevel) SpellInByteAlphabet(text);
  return {};
}

Result<PreTokenizedText> PreTokenizer::Split(std::string_view text, bool at_start) const {
  PreTokenizedText result;
  result.text = text;
  if (!text.empty()) result.pieces.push_back({0, text.size()});
  for (const Step& step : steps_) {
    if (Status s = ApplyStep(step, at_start, &result); !s.ok()) return s;
  }
  return result;
}

}  // namespace sluice
