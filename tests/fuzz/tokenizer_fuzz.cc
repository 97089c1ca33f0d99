// Tokenizers. The first byte chooses: tokenizer.json, tokenizer.model, sluice's own JSON, or text
// for fixed tokenizers of each kind. What is accepted must encode, decode in increments as in one
// piece, and survive its own JSON.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "loaders/tokenizer/tokenizer.h"
#include "tests/fuzz/measured_input.h"

namespace {

using namespace sluice;
using Ids = std::vector<int32_t>;

void Require(bool promise) {
  if (!promise) std::abort();
}

// Strings and tables of a tokenizer, and an expression to compile, whatever the size of the input.
constexpr size_t kTokenizerBytes = 256 << 10;

Result<Tokenizer> FromFiles(const HuggingFaceTokenizerFiles& files, size_t size) {
  const MeasuredInput measured(size, MeasuredInput::kFactor, kTokenizerBytes);
  return Tokenizer::FromHuggingFace(files);
}

Result<Tokenizer> FromStored(std::string_view json) {
  const MeasuredInput measured(json.size(), MeasuredInput::kFactor, kTokenizerBytes);
  return Tokenizer::FromJson(json);
}

void CheckText(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool flag : {false, true}) {
    Result<Ids> ids = tokenizer.Encode(text, flag, flag);
    if (!ids.ok()) continue;
    // A token for each byte at most, but for what prefixes, normalizers and templates add.
    Require(ids->size() <= 64 * text.size() + (size_t{1} << 20));
    for (const int32_t id : *ids) Require(id >= 0 && id < tokenizer.vocab_size());
    Detokenizer detokenizer(tokenizer, flag);
    std::string joined;
    for (const int32_t id : *ids) joined += detokenizer.Append(id);
    joined += detokenizer.Finish();
    Require(joined == tokenizer.Decode(*ids, flag));
  }
}

void Check(const Result<Tokenizer>& tokenizer, std::string_view text) {
  if (!tokenizer.ok()) return;
  const std::string json = tokenizer->ToJson();
  Result<Tokenizer> again = Tokenizer::FromJson(json);
  Require(again.ok() && again->ToJson() == json);
  for (const std::string_view sample :
       {std::string_view(), std::string_view(" a ab\n\xC3\xA9\xFF<s>"), text}) {
    CheckText(*tokenizer, sample.substr(0, 256));
  }
}

constexpr std::string_view kDecoder =
    R"("decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},)"
    R"("content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ",)"
    R"("start":1,"stop":0}]})";
constexpr std::string_view kAdded =
    R"("added_tokens":[{"id":9,"content":"<s>","special":true,"normalized":false},)"
    R"({"id":10,"content":"<t>","special":false,"lstrip":true,"rstrip":true,"normalized":true}])";

Tokenizer Fixed(const std::string& model, const std::string& rest) {
  const std::string json = "{\"model\":" + model + "," + rest + "," + std::string(kAdded) + "}";
  HuggingFaceTokenizerFiles files;
  files.tokenizer_json = json;
  Result<Tokenizer> tokenizer = Tokenizer::FromHuggingFace(files);
  Require(tokenizer.ok());
  return *tokenizer;
}

const std::vector<Tokenizer>& FixedTokenizers() {
  static const std::vector<Tokenizer> tokenizers = [] {
    const std::string spaces =
        R"("normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Replace",)"
        R"("pattern":{"Regex":" {2,}"},"content":" "},{"type":"Prepend","prepend":"_"},)"
        R"({"type":"Replace","pattern":{"String":" "},"content":"_"}]},)";
    const std::string text = spaces + std::string(kDecoder);
    const std::string metaspace =
        R"("pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"first"},)" +
        std::string(kDecoder);
    const std::string byte_level =
        R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)"
        R"("decoder":{"type":"ByteLevel"})";
    const std::string bpe =
        R"({"type":"BPE","byte_fallback":true,"fuse_unk":true,"unk_token":"<unk>",)"
        R"("vocab":{"<unk>":0,"_":1,"a":2,"b":3,"ab":4,"_a":5,"<0xC3>":6,"<0xA9>":7,"__":8},)"
        R"("merges":["_ _","a b","_ a"]})";
    const std::string unigram =
        R"({"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0],["_",-2],)"
        R"(["a",-3],["b",-3.5],["ab",-4],["_a",-4.5],["<0xC3>",-9],["<0xA9>",-9],["__",-3]]})";
    return std::vector<Tokenizer>{Fixed(bpe, text), Fixed(bpe, metaspace), Fixed(bpe, byte_level),
                                  Fixed(unigram, text), Fixed(unigram, metaspace)};
  }();
  return tokenizers;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  HuggingFaceTokenizerFiles files;
  switch (data[0] % 4) {
    case 0:
      files.tokenizer_json = text;
      Check(FromFiles(files, size), text);
      break;
    case 1:
      files.sentencepiece_model = text;
      Check(FromFiles(files, size), text);
      break;
    case 2:
      Check(FromStored(text), text);
      break;
    default:
      for (const Tokenizer& tokenizer : FixedTokenizers()) CheckText(tokenizer, text);
  }
  return 0;
}
