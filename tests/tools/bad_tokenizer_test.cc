// tokenizer.json files that are wrong, through the program: in a checkpoint that is right
// otherwise.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/support/bad_file.h"
#include "tests/support/program.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

BadFile Bad(const char* name, int exit_code, const char* code, const char* message,
            void (*change)(Json*)) {
  return {name,
          [change] {
            Json json = Json::parse(ReadTestFile(GoldenCheckpoint("gqa") + "/tokenizer.json"));
            change(&json);
            return json.dump();
          },
          exit_code, code, message};
}

BadFile BadBytes(const char* name, int exit_code, const char* code, const char* message,
                 void (*change)(std::string*)) {
  return {name,
          [change] {
            std::string bytes = ReadTestFile(GoldenCheckpoint("gqa") + "/tokenizer.json");
            change(&bytes);
            return bytes;
          },
          exit_code, code, message};
}

Json Split(const std::string& regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

void SetSplit(Json* j, const std::string& regex) {
  (*j)["pre_tokenizer"]["pretokenizers"][0] = Split(regex);
}

const BadFile kBadFiles[] = {
    BadBytes("Empty", 1, "corrupt", "is not JSON", [](std::string* b) { b->clear(); }),
    BadBytes("Half", 1, "corrupt", "is not JSON", [](std::string* b) { b->resize(b->size() / 2); }),
    BadBytes("LastBraceMissing", 1, "corrupt", "is not JSON",
             [](std::string* b) { b->resize(b->find_last_of('}')); }),
    BadBytes("TwoDocuments", 1, "corrupt", "is not JSON", [](std::string* b) { *b += "{}"; }),
    BadBytes("NotUtf8", 1, "corrupt", "is not JSON",
             [](std::string* b) { b->replace(b->find("<|bos|>"), 1, "\xff"); }),
    BadBytes("AList", 1, "corrupt", "is not a JSON object", [](std::string* b) { *b = "[]"; }),
    BadBytes("Null", 1, "corrupt", "is not a JSON object", [](std::string* b) { *b = "null"; }),
    BadBytes("NestedALot", 1, "limit exceeded", "JSON nested deeper than 256 levels",
             [](std::string* b) { *b = std::string(100'000, '['); }),
    Bad("NoModel", 1, "corrupt", "no model", [](Json* j) { j->erase("model"); }),
    Bad("ModelIsAList", 1, "corrupt", "no model", [](Json* j) { (*j)["model"] = Json::array(); }),
    Bad("WordPiece", 3, "unsupported", "model 'WordPiece'",
        [](Json* j) { (*j)["model"]["type"] = "WordPiece"; }),
    Bad("NoVocabulary", 1, "corrupt", "no vocabulary",
        [](Json* j) { (*j)["model"].erase("vocab"); }),
    Bad("VocabularyIsAList", 1, "corrupt", "no vocabulary",
        [](Json* j) {
          (*j)["model"]["vocab"] = {"a", "b"};
        }),
    Bad("IdIsText", 1, "corrupt", "id of token '!'",
        [](Json* j) { (*j)["model"]["vocab"]["!"] = "2"; }),
    Bad("IdIsAFraction", 1, "corrupt", "id of token '!'",
        [](Json* j) { (*j)["model"]["vocab"]["!"] = 2.5; }),
    Bad("IdIsNegative", 1, "corrupt", "id of token '!'",
        [](Json* j) { (*j)["model"]["vocab"]["!"] = -2; }),
    Bad("IdOf2To32", 1, "corrupt", "id of token '!'",
        [](Json* j) { (*j)["model"]["vocab"]["!"] = uint64_t{1} << 32; }),
    Bad("IdOf2To63", 1, "corrupt", "id of token '!'",
        [](Json* j) { (*j)["model"]["vocab"]["!"] = uint64_t{1} << 63; }),
    Bad("TwoTokensOfOneId", 1, "corrupt", "tokens '!' and '\"' have the id 3",
        [](Json* j) { (*j)["model"]["vocab"]["!"] = 3; }),
    Bad("MoreTokensThanTheEmbedding", 1, "corrupt", "308 tokens, but the embedding has 307 rows",
        [](Json* j) { (*j)["model"]["vocab"]["!!"] = 307; }),
    Bad("MergesAreText", 1, "corrupt", "no merges",
        [](Json* j) { (*j)["model"]["merges"] = "h e"; }),
    Bad("MergeOfOneToken", 1, "corrupt", "not two strings",
        [](Json* j) { (*j)["model"]["merges"][0] = {"he"}; }),
    Bad("MergeOfThreeTokens", 1, "corrupt", "not two strings",
        [](Json* j) {
          (*j)["model"]["merges"][0] = {"h", "e", "n"};
        }),
    Bad("MergeOfNumbers", 1, "corrupt", "not two strings",
        [](Json* j) {
          (*j)["model"]["merges"][0] = {1, 2};
        }),
    Bad("MergeOfAnUnknownToken", 1, "corrupt", "merge of 'h' and 'zzz' names an absent token",
        [](Json* j) {
          (*j)["model"]["merges"][0] = {"h", "zzz"};
        }),
    Bad("MergeToAnUnknownToken", 1, "corrupt", "merge 0 names a token that is not there",
        [](Json* j) {
          (*j)["model"]["merges"][0] = {"!", "!"};
        }),
    Bad("MergeIsNull", 1, "corrupt", "not two strings",
        [](Json* j) { (*j)["model"]["merges"][0] = nullptr; }),
    Bad("AddedTokensAreAnObject", 1, "corrupt", "'added_tokens' is not a list",
        [](Json* j) { (*j)["added_tokens"] = Json::object(); }),
    Bad("AddedFlagIsANumber", 1, "corrupt", "'special' is not true or false",
        [](Json* j) { (*j)["added_tokens"][0]["special"] = 1; }),
    Bad("UnknownNormalizer", 3, "unsupported", "normalizer 'Rot13'",
        [](Json* j) {
          (*j)["normalizer"] = {{"type", "Rot13"}};
        }),
    Bad("NormalizerIsText", 3, "unsupported", "normalizer without a type",
        [](Json* j) { (*j)["normalizer"] = "NFC"; }),
    Bad("NormalizersNested", 1, "limit exceeded", "JSON nested deeper than 256 levels",
        [](Json* j) {
          Json inner = {{"type", "NFC"}};
          for (int i = 0; i < 200; ++i) {
            inner = Json{{"type", "Sequence"}, {"normalizers", Json::array({inner})}};
          }
          (*j)["normalizer"] = inner;
        }),
    Bad("UnknownPreTokenizer", 3, "unsupported", "pre-tokenizer 'Cutter'",
        [](Json* j) {
          (*j)["pre_tokenizer"] = {{"type", "Cutter"}};
        }),
    Bad("NoPreTokenizer", 3, "unsupported", "decoder 'ByteLevel'",
        [](Json* j) { j->erase("pre_tokenizer"); }),
    Bad("SequenceOfNumbers", 3, "unsupported", "pre-tokenizer without a type",
        [](Json* j) {
          (*j)["pre_tokenizer"]["pretokenizers"] = {1, 2};
        }),
    Bad("UnknownBehavior", 3, "unsupported", "pre-tokenizer: split behavior 'Shredded'",
        [](Json* j) {
          SetSplit(j, "a");
          (*j)["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Shredded";
        }),
    Bad("ExpressionUnclosed", 1, "corrupt", "pre-tokenizer: regular expression: missing )",
        [](Json* j) { SetSplit(j, "(a"); }),
    Bad("ExpressionOfNothing", 3, "unsupported", "pre-tokenizer Split with an empty pattern",
        [](Json* j) { SetSplit(j, ""); }),
    Bad("ExpressionRepeatsNothing", 1, "corrupt",
        "pre-tokenizer: regular expression: nothing to repeat", [](Json* j) { SetSplit(j, "*a"); }),
    Bad("ExpressionCountsTo10To9", 3, "unsupported",
        "pre-tokenizer: regular expression 'a{1000000000}':",
        [](Json* j) { SetSplit(j, "a{1000000000}"); }),
    Bad("ExpressionNested", 3, "unsupported", "regular expression of more than 4 KiB",
        [](Json* j) { SetSplit(j, std::string(5000, '(') + std::string(5000, ')')); }),
    Bad("UnknownPostProcessor", 3, "unsupported", "post-processor 'Envelope'",
        [](Json* j) {
          (*j)["post_processor"] = {{"type", "Envelope"}};
        }),
    Bad("TemplateOfAnUnknownToken", 1, "corrupt", "template token '<|bos|>'",
        [](Json* j) { (*j)["post_processor"]["special_tokens"] = Json::object(); }),
    Bad("TemplateOfAForeignId", 1, "corrupt", "no token has the id 999",
        [](Json* j) { (*j)["post_processor"]["special_tokens"]["<|bos|>"]["ids"] = {999}; }),
    Bad("NoDecoder", 3, "unsupported", "no decoder", [](Json* j) { j->erase("decoder"); }),
    Bad("UnknownDecoder", 3, "unsupported", "decoder 'Guess'",
        [](Json* j) {
          (*j)["decoder"] = {{"type", "Guess"}};
        }),
};

class BadTokenizer : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizer, ConvertSaysWhatIsWrongInOneLineAndLeavesNothing) {
  const ScratchDirectory scratch;
  std::filesystem::copy(GoldenCheckpoint("gqa"), scratch / "model");
  WriteTestFile(scratch / "model/tokenizer.json", GetParam().bytes());
  ExpectOneLineOfError({"convert", scratch / "model", "-o", scratch / "m.sluice"},
                       "model/tokenizer.json", GetParam());
  EXPECT_FALSE(std::filesystem::exists(scratch / "m.sluice"));
}

INSTANTIATE_TEST_SUITE_P(Files, BadTokenizer, ::testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
