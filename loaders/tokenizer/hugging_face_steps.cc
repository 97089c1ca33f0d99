#include "loaders/tokenizer/hugging_face_steps.h"

#include <array>
#include <utility>

namespace sluice {
namespace {

// A Sequence in a Sequence is legal and useless; this bounds the recursion.
constexpr int kMaxDepth = 8;

// Of one kind; each may have an expression to compile. Tokenizers have a handful.
constexpr size_t kMaxSteps = 64;

constexpr std::string_view kMetaspaceCharacter = "\u2581";

Status Unsupported(const std::string& what, const JsonValue& component) {
  const std::string type = TypeOf(component);
  return Status(ErrorCode::kUnsupported,
                what + (type.empty() ? std::string(" without a type") : " '" + type + "'"));
}

Status TooManySteps(const char* what) {
  return Status(ErrorCode::kLimitExceeded,
                std::string(what) + " of more than " + std::to_string(kMaxSteps) + " steps");
}

// Calls read(component) for each component that is not a Sequence. The list of a Sequence is called
// `list` in the file.
template <typename Read>
Status ForEach(const JsonValue& component, const std::string& what, const char* list, int depth,
               Read read) {
  if (TypeOf(component) != "Sequence") return read(component);
  const JsonValue* members = FindMember(component, list);
  if (members == nullptr || !members->is_array()) {
    return Status(ErrorCode::kCorrupt, what + " Sequence without '" + list + "'");
  }
  if (depth >= kMaxDepth) return Status(ErrorCode::kUnsupported, what + " nested too deep");
  for (const JsonValue& member : members->elements()) {
    if (Status s = ForEach(member, what, list, depth + 1, read); !s.ok()) return s;
  }
  return {};
}

// {"String": "..."} or {"Regex": "..."}.
Status ReadPattern(const JsonValue& component, std::string* pattern, bool* is_regex) {
  const JsonValue* field = FindMember(component, "pattern");
  if (field == nullptr || !field->is_object()) {
    return Status(ErrorCode::kCorrupt, TypeOf(component) + " without a pattern");
  }
  *is_regex = FindMember(*field, "Regex") != nullptr;
  if (!*is_regex && FindMember(*field, "String") == nullptr) {
    return Status(ErrorCode::kUnsupported, "pattern that is neither String nor Regex");
  }
  return ReadString(*field, *is_regex ? "Regex" : "String", pattern);
}

Status ReadBehavior(const JsonValue& component, SplitBehavior* behavior) {
  constexpr auto kNames = std::to_array<std::pair<std::string_view, SplitBehavior>>({
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  });
  std::string name;
  if (Status s = ReadString(component, "behavior", &name); !s.ok()) return s;
  for (const auto& [known, value] : kNames) {
    if (known == name) {
      *behavior = value;
      return {};
    }
  }
  return Status(ErrorCode::kUnsupported, "split behavior '" + name + "'");
}

Status ReadNormalizerStep(const JsonValue& component, std::vector<NormalizerStep>* steps) {
  using Kind = NormalizerStep::Kind;
  constexpr auto kKinds = std::to_array<std::pair<std::string_view, Kind>>({
      {"NFC", Kind::kNfc},
      {"NFD", Kind::kNfd},
      {"NFKC", Kind::kNfkc},
      {"NFKD", Kind::kNfkd},
      {"Lowercase", Kind::kLowercase},
      {"Replace", Kind::kReplace},
      {"Prepend", Kind::kPrepend},
      {"Strip", Kind::kStrip},
      {"StripAccents", Kind::kStripAccents},
      {"Nmt", Kind::kNmt},
      {"Precompiled", Kind::kCharsmapGraphemes},
  });
  const std::string type = TypeOf(component);
  for (const auto& [name, kind] : kKinds) {
    if (name != type) continue;
    NormalizerStep step;
    step.kind = kind;
    Status s;
    if (kind == Kind::kReplace) {
      s = ReadPattern(component, &step.pattern, &step.pattern_is_regex);
      if (s.ok()) s = ReadString(component, "content", &step.content);
    } else if (kind == Kind::kPrepend) {
      s = ReadString(component, "prepend", &step.content);
    } else if (kind == Kind::kCharsmapGraphemes) {
      s = ReadString(component, "precompiled_charsmap", &step.content);
      if (s.ok() && step.content.empty()) return {};  // maps nothing
    } else if (kind == Kind::kStrip) {
      s = ReadFlag(component, "strip_left", false, &step.strip_left);
      if (s.ok()) s = ReadFlag(component, "strip_right", false, &step.strip_right);
    }
    if (!s.ok()) return s.WithContext("normalizer");
    if (steps->size() >= kMaxSteps) return TooManySteps("normalizer");
    steps->push_back(std::move(step));
    return {};
  }
  return Unsupported("normalizer", component);
}

Status ReadByteLevel(const JsonValue& component, PreTokenizerStep* step) {
  step->kind = PreTokenizerStep::Kind::kByteLevel;
  if (Status s = ReadFlag(component, "add_prefix_space", true, &step->add_prefix_space); !s.ok()) {
    return s;
  }
  return ReadFlag(component, "use_regex", true, &step->use_regex);
}

Status ReadDigits(const JsonValue& component, PreTokenizerStep* step) {
  step->kind = PreTokenizerStep::Kind::kDigits;
  bool individual = false;
  Status s = ReadFlag(component, "individual_digits", false, &individual);
  step->behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
  return s;
}

Status ReadSplit(const JsonValue& component, PreTokenizerStep* step) {
  step->kind = PreTokenizerStep::Kind::kSplit;
  if (Status s = ReadPattern(component, &step->pattern, &step->pattern_is_regex); !s.ok()) return s;
  if (Status s = ReadFlag(component, "invert", false, &step->invert); !s.ok()) return s;
  return ReadBehavior(component, &step->behavior);
}

// Older files have add_prefix_space instead of prepend_scheme.
Status ReadMetaspace(const JsonValue& component, PreTokenizerStep* step) {
  step->kind = PreTokenizerStep::Kind::kMetaspace;
  bool add_prefix_space = true;
  std::string scheme;
  Status s = ReadString(component, "replacement", &step->pattern);
  if (s.ok()) s = ReadFlag(component, "add_prefix_space", true, &add_prefix_space);
  if (s.ok()) s = ReadString(component, "prepend_scheme", &scheme);
  if (s.ok()) s = ReadFlag(component, "split", true, &step->split_words);
  if (!s.ok()) return s;
  if (step->pattern.empty()) step->pattern = kMetaspaceCharacter;
  if (scheme.empty()) scheme = add_prefix_space ? "always" : "never";
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return Status(ErrorCode::kUnsupported, "Metaspace with prepend_scheme '" + scheme + "'");
  }
  step->prepend = scheme == "always"  ? PrependScheme::kAlways
                  : scheme == "first" ? PrependScheme::kFirst
                                      : PrependScheme::kNever;
  return {};
}

// Words and runs of what is neither word nor space.
PreTokenizerStep WhitespaceStep() {
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::Kind::kSplit;
  step.pattern = R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}]+)"
                 R"(|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}\s]+)";
  step.pattern_is_regex = true;
  step.behavior = SplitBehavior::kRemoved;
  step.invert = true;
  return step;
}

Status ReadDecoderStep(const JsonValue& component, std::vector<DecoderStep>* steps) {
  using Kind = DecoderStep::Kind;
  const std::string type = TypeOf(component);
  DecoderStep step;
  Status s;
  if (type == "Replace") {
    step.kind = Kind::kReplace;
    bool is_regex = false;
    s = ReadPattern(component, &step.pattern, &is_regex);
    if (s.ok() && is_regex) return Status(ErrorCode::kUnsupported, "decoder Replace of a Regex");
    if (s.ok()) s = ReadString(component, "content", &step.content);
  } else if (type == "Metaspace") {
    step.kind = Kind::kMetaspace;
    PreTokenizerStep metaspace;
    s = ReadMetaspace(component, &metaspace);
    step.pattern = metaspace.pattern;
    step.drop_first = metaspace.prepend != PrependScheme::kNever;
  } else if (type == "ByteFallback") {
    step.kind = Kind::kByteFallback;
  } else if (type == "Fuse") {
    step.kind = Kind::kFuse;
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    s = ReadString(component, "content", &step.pattern);
    const JsonValue* start = FindMember(component, "start");
    const JsonValue* stop = FindMember(component, "stop");
    const std::optional<int32_t> from = start == nullptr ? 0 : AsTokenId(*start);
    const std::optional<int32_t> to = stop == nullptr ? 0 : AsTokenId(*stop);
    if (s.ok() && (!from || !to)) s = Status(ErrorCode::kCorrupt, "decoder Strip");
    step.start = from.value_or(0);
    step.stop = to.value_or(0);
  } else {
    return Unsupported("decoder", component);
  }
  if (!s.ok()) return s.WithContext("decoder");
  if (steps->size() >= kMaxSteps) return TooManySteps("decoder");
  steps->push_back(std::move(step));
  return {};
}

Status ReadPreTokenizerStep(const JsonValue& component, std::vector<PreTokenizerStep>* steps) {
  const std::string type = TypeOf(component);
  PreTokenizerStep step;
  Status s;
  if (type == "ByteLevel") {
    s = ReadByteLevel(component, &step);
  } else if (type == "Split") {
    s = ReadSplit(component, &step);
  } else if (type == "Digits") {
    s = ReadDigits(component, &step);
  } else if (type == "Metaspace") {
    s = ReadMetaspace(component, &step);
  } else if (type == "WhitespaceSplit") {
    step.kind = PreTokenizerStep::Kind::kWhitespaceSplit;
  } else if (type == "Whitespace") {
    step = WhitespaceStep();
  } else if (type == "CharDelimiterSplit") {
    step.kind = PreTokenizerStep::Kind::kSplit;
    step.behavior = SplitBehavior::kRemoved;
    s = ReadString(component, "delimiter", &step.pattern);
  } else if (type == "Punctuation") {
    step.kind = PreTokenizerStep::Kind::kPunctuation;
    if (FindMember(component, "behavior") != nullptr) s = ReadBehavior(component, &step.behavior);
  } else {
    return Unsupported("pre-tokenizer", component);
  }
  if (!s.ok()) return s.WithContext("pre-tokenizer");
  if (steps->size() >= kMaxSteps) return TooManySteps("pre-tokenizer");
  steps->push_back(std::move(step));
  return {};
}

}  // namespace

std::string TypeOf(const JsonValue& component) {
  const JsonValue* type = FindMember(component, "type");
  return type != nullptr && type->is_string() ? std::string(type->AsString()) : std::string();
}

Status ReadNormalizer(const JsonValue& normalizer, std::vector<NormalizerStep>* steps) {
  return ForEach(normalizer, "normalizer", "normalizers", 0,
                 [steps](const JsonValue& member) { return ReadNormalizerStep(member, steps); });
}

Status ReadPreTokenizer(const JsonValue& pre_tokenizer, std::vector<PreTokenizerStep>* steps) {
  return ForEach(pre_tokenizer, "pre-tokenizer", "pretokenizers", 0,
                 [steps](const JsonValue& member) { return ReadPreTokenizerStep(member, steps); });
}

Status ReadDecoder(const JsonValue& decoder, std::vector<DecoderStep>* steps) {
  return ForEach(decoder, "decoder", "decoders", 0,
                 [steps](const JsonValue& member) { return ReadDecoderStep(member, steps); });
}

Status CheckByteLevelDecoder(const JsonValue& decoder) {
  int byte_level = 0;
  Status s = ForEach(decoder, "decoder", "decoders", 0, [&byte_level](const JsonValue& member) {
    if (TypeOf(member) != "ByteLevel") return Unsupported("decoder", member);
    ++byte_level;
    return Status();
  });
  if (s.ok() && byte_level != 1) {
    return Status(ErrorCode::kUnsupported, "decoder that is not one ByteLevel");
  }
  return s;
}

}  // namespace sluice
