// GGUF files that are wrong, through the program: files that no reader can trust, and whole files
// that are no model.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/bad_file.h"
#include "tests/support/foreign_files.h"
#include "tests/support/program.h"

namespace sluice {
namespace {

using File = GgufBytes;

BadFile Bad(const char* name, int exit_code, const char* code, const char* message,
            void (*change)(File*)) {
  return {name,
          [change] {
            GgufBytes file = TinyLlamaGguf();
            change(&file);
            return file.Build();
          },
          exit_code, code, message};
}

BadFile BadBytes(const char* name, int exit_code, const char* code, const char* message,
                 void (*change)(std::string*)) {
  return {name,
          [change] {
            std::string bytes = TinyLlamaGguf().Build();
            change(&bytes);
            return bytes;
          },
          exit_code, code, message};
}

void SetU32(File* f, const char* key, uint32_t value) { f->Remove(key).AddU32(key, value); }

const BadFile kBadFiles[] = {
    BadBytes("Empty", 3, "unsupported",
             "not a GGUF file, nor a .sluice file; for safetensors give the directory",
             [](std::string* b) { b->clear(); }),
    BadBytes("MagicAlone", 1, "truncated", "the header goes on at offset 4 for at least 4 bytes,",
             [](std::string* b) { b->resize(4); }),
    BadBytes("HalfOfTheCounts", 1, "truncated",
             "the header goes on at offset 8 for at least 8 bytes,",
             [](std::string* b) { b->resize(12); }),
    BadBytes("HeaderAlone", 1, "truncated",
             "declares 13 keys and 11 tensors, more than its 24 bytes",
             [](std::string* b) { b->resize(24); }),
    BadBytes("HalfTheFile", 1, "truncated",
             "tensor 'blk.0.ffn_gate.weight': 8192 bytes from offset",
             [](std::string* b) { b->resize(b->size() / 2); }),
    BadBytes("LastByteMissing", 1, "truncated",
             "tensor 'output_norm.weight': 128 bytes from offset",
             [](std::string* b) { b->pop_back(); }),
    BadBytes("TensorsOf2To63", 1, "truncated",
             "declares 13 keys and 9223372036854775808 tensors, more",
             [](std::string* b) { b->replace(8, 8, LittleEndian(uint64_t{1} << 63)); }),
    BadBytes("KeysOf2To63", 1, "truncated",
             "declares 9223372036854775808 keys and 11 tensors, more",
             [](std::string* b) { b->replace(16, 8, LittleEndian(uint64_t{1} << 63)); }),
    BadBytes("OneKeyMoreThanThereAre", 1, "truncated",
             "a tensor name at offset 733 of 2251799813685248 bytes",
             [](std::string* b) { ++(*b)[16]; }),
    BadBytes("OneKeyLessThanThereAre", 1, "corrupt",
             "tensor 'llama.attention.layer_norm_rms_epsilon': 6",
             [](std::string* b) { --(*b)[16]; }),
    BadBytes("Version4", 3, "unsupported", "GGUF version 4 (2 and 3 are read)",
             [](std::string* b) { (*b)[4] = 4; }),
    BadBytes("Version0", 3, "unsupported", "GGUF version 0 (2 and 3 are read)",
             [](std::string* b) { (*b)[4] = 0; }),
    Bad("KeyWithALengthOf2To40", 1, "truncated",
        "a metadata key at offset 32 of 1099511627776 bytes",
        [](File* f) { f->entries[0] = LittleEndian(uint64_t{1} << 40); }),
    Bad("ValueOfType255", 1, "corrupt", "metadata key 'x': unknown value type 255",
        [](File* f) { f->Add("x", 255, "12345678"); }),
    Bad("TextOf2To48Bytes", 1, "truncated", "metadata key 'x': a string at offset 715 of",
        [](File* f) { f->Add("x", 8, LittleEndian(uint64_t{1} << 48)); }),
    Bad("ListOf2To60Bytes", 1, "truncated", "metadata key 'x': an array of 1152921504606846976",
        [](File* f) {
          f->Add("x", 9, LittleEndian<uint32_t>(0) + LittleEndian(uint64_t{1} << 60));
        }),
    Bad("ListOf2To61Numbers", 1, "truncated", "metadata key 'x': an array of 2305843009213693952",
        [](File* f) {
          f->Add("x", 9, LittleEndian<uint32_t>(10) + LittleEndian(uint64_t{1} << 61));
        }),
    Bad("ListOfTexts", 1, "truncated", "metadata key 'x': an array of 1125899906842624 elements",
        [](File* f) {
          f->Add("x", 9, LittleEndian<uint32_t>(8) + LittleEndian(uint64_t{1} << 50));
        }),
    Bad("AlignmentOf3", 1, "corrupt", "general.alignment is 3, not a power of two up to 65536",
        [](File* f) { f->AddU32("general.alignment", 3); }),
    Bad("AlignmentTwice", 1, "corrupt", "metadata key 'general.alignment' appears twice",
        [](File* f) { f->AddU32("general.alignment", 32).AddU32("general.alignment", 64); }),
    Bad("TensorTwice", 1, "corrupt", "tensor 'blk.0.attn_k.weight' appears twice",
        [](File* f) { f->AddTensor(f->tensors[3]); }),
    Bad("TensorsOverlap", 1, "corrupt", "tensors 'token_embd.weight' and",
        [](File* f) { f->offsets.assign(f->tensors.size(), 0); }),
    Bad("TypeOf1000", 3, "unsupported", "tensor 'blk.0.ffn_up.weight': unknown tensor type 1000",
        [](File* f) { f->Tensor("blk.0.ffn_up.weight").type = 1000; }),
    Bad("DimensionOf0", 1, "corrupt", "tensor 'blk.0.ffn_up.weight': a dimension of 0",
        [](File* f) {
          f->Tensor("blk.0.ffn_up.weight").dims = {0, 64};
        }),
    Bad("DimensionOf2To63", 1, "corrupt", "tensor 'blk.0.ffn_up.weight': its dimensions overflow",
        [](File* f) {
          f->Tensor("blk.0.ffn_up.weight").dims = {uint64_t{1} << 63, 2};
        }),
    Bad("NoArchitecture", 1, "not found", "metadata key 'general.architecture' is missing",
        [](File* f) { f->Remove("general.architecture"); }),
    Bad("ArchitectureIsANumber", 1, "corrupt",
        "metadata key 'general.architecture' is not a string",
        [](File* f) { SetU32(f, "general.architecture", 7); }),
    Bad("UnknownArchitecture", 3, "unsupported",
        "architecture 'perceptron' is not supported in GGUF;",
        [](File* f) {
          f->Remove("general.architecture").AddString("general.architecture", "perceptron");
        }),
    Bad("NoLayers", 1, "corrupt", "metadata: num_layers is 0, not between 1 and 4096",
        [](File* f) { SetU32(f, "llama.block_count", 0); }),
    Bad("LayersOf2To32", 1, "corrupt", "metadata: num_layers is 4294967295, not between 1 and",
        [](File* f) { SetU32(f, "llama.block_count", UINT32_MAX); }),
    Bad("LayerCountIsText", 1, "corrupt", "metadata key 'llama.block_count' is not an integer of 0",
        [](File* f) { f->Remove("llama.block_count").AddString("llama.block_count", "1"); }),
    Bad("LayerCountMissing", 1, "not found", "metadata key 'llama.block_count' is missing",
        [](File* f) { f->Remove("llama.block_count"); }),
    Bad("HiddenSizeOf0", 1, "corrupt", "metadata: hidden_size is 0, not between 1 and 16777216",
        [](File* f) { SetU32(f, "llama.embedding_length", 0); }),
    Bad("HiddenSizeOf64", 1, "corrupt", "tensor 'blk.0.attn_norm.weight': shape [32], the",
        [](File* f) { SetU32(f, "llama.embedding_length", 64); }),
    Bad("HeadsOf0", 1, "corrupt", "metadata: num_heads is 0, not between 1 and 16777216",
        [](File* f) { SetU32(f, "llama.attention.head_count", 0); }),
    Bad("HeadsThatDoNotDivide", 1, "corrupt", "tensor 'blk.0.attn_q.weight': shape [32, 32], the",
        [](File* f) { SetU32(f, "llama.attention.head_count", 3); }),
    Bad("MoreKvHeadsThanHeads", 1, "corrupt", "metadata: num_heads is 2, not a multiple of",
        [](File* f) { SetU32(f, "llama.attention.head_count_kv", 4); }),
    Bad("KvHeadsThatDoNotDivide", 1, "corrupt",
        "metadata: num_kv_heads is 0, not between 1 and 16777216",
        [](File* f) { SetU32(f, "llama.attention.head_count_kv", 0); }),
    Bad("NormEpsIsText", 1, "corrupt", "metadata key 'llama.attention.layer_norm_rms_epsilon'",
        [](File* f) {
          f->Remove("llama.attention.layer_norm_rms_epsilon")
              .AddString("llama.attention.layer_norm_rms_epsilon", "tiny");
        }),
    Bad("TensorMissing", 1, "corrupt", "tensor 'blk.0.ffn_down.weight' is missing",
        [](File* f) { f->RemoveTensor("blk.0.ffn_down.weight"); }),
    Bad("NormMissing", 1, "corrupt", "tensor 'output_norm.weight' is missing",
        [](File* f) { f->RemoveTensor("output_norm.weight"); }),
    Bad("EmbeddingMissing", 1, "corrupt", "tensor 'token_embd.weight' is missing or not a matrix",
        [](File* f) { f->RemoveTensor("token_embd.weight"); }),
    Bad("TensorOfAnotherShape", 1, "corrupt", "tensor 'blk.0.ffn_up.weight': shape [32, 64], the",
        [](File* f) {
          std::swap(f->Tensor("blk.0.ffn_up.weight").dims[0],
                    f->Tensor("blk.0.ffn_up.weight").dims[1]);
        }),
    Bad("TensorOfNoModel", 3, "unsupported",
        "tensor 'blk.0.surprise.weight' is none of architecture",
        [](File* f) { f->AddF32Tensor("blk.0.surprise.weight", {32}); }),
    Bad("TensorOfALayerTooMany", 3, "unsupported",
        "tensor 'blk.1.attn_norm.weight' is not part of the",
        [](File* f) { f->AddF32Tensor("blk.1.attn_norm.weight", {32}); }),
    Bad("VocabularyIsText", 1, "corrupt", "metadata key 'tokenizer.ggml.tokens' is not an array of",
        [](File* f) {
          f->Remove("tokenizer.ggml.tokens").AddString("tokenizer.ggml.tokens", "a b");
        }),
    Bad("VocabularyLargerThanTheEmbedding", 1, "corrupt", "9 tokens, but the embedding has 8 rows",
        [](File* f) {
          f->Remove("tokenizer.ggml.tokens")
              .AddStrings("tokenizer.ggml.tokens",
                          {"a", "b", "c", "d", "ab", "cd", "abcd", "!", "x"});
        }),
    Bad("MergeOfUnknownTokens", 1, "corrupt", "GGUF tokenizer: merge 0 names an absent token",
        [](File* f) {
          f->Remove("tokenizer.ggml.merges").AddStrings("tokenizer.ggml.merges", {"y z"});
        }),
    Bad("EndTokenOf2To31", 1, "corrupt", "tokenizer.ggml.eos_token_id",
        [](File* f) { SetU32(f, "tokenizer.ggml.eos_token_id", 1u << 31); }),
    Bad("UnknownTokenizer", 3, "unsupported", "GGUF tokenizer model 'rwkv-of-tomorrow'",
        [](File* f) {
          f->Remove("tokenizer.ggml.model").AddString("tokenizer.ggml.model", "rwkv-of-tomorrow");
        }),
};

class BadGguf : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadGguf, ConvertSaysWhatIsWrongInOneLineAndLeavesNothing) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "m.gguf", GetParam().bytes());
  ExpectOneLineOfError({"convert", scratch / "m.gguf", "-o", scratch / "m.sluice"}, "m.gguf",
                       GetParam());
  EXPECT_FALSE(std::filesystem::exists(scratch / "m.sluice"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "m.sluice.partial"));
}

TEST(GoodGguf, TheFileThatTheBadOnesAreMadeOfIsConverted) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "m.gguf", TinyLlamaGguf().Build());
  const ProgramResult result =
      RunSluice({"convert", scratch / "m.gguf", "-o", scratch / "m.sluice", "--quiet"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

INSTANTIATE_TEST_SUITE_P(Files, BadGguf, ::testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
