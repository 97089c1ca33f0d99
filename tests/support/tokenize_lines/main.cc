// Runs a tokenizer on many texts, for tests/golden/compare_tokenizers.py:
//   tokenize_lines hf DIRECTORY | tokenize_lines gguf FILE | tokenize_lines json FILE
// Each line of stdin is a request, each line of stdout its answer:
//   e FLAG RUN...  ids of the runs; FLAG 1: with BOS and EOS; a RUN is p (special tokens are
//   parsed) or u
//                  and the text in hexadecimal
//   d FLAG ID...   the text of the ids in hexadecimal; FLAG 1: without special tokens
//   i FLAG ID...   the same from a Detokenizer
//   j              the compact JSON
//   s              vocabulary size, BOS, EOS ids
//   b COUNT VERB...  for COUNT texts that follow, each as its size (32 bits of this machine) and
//                  its bytes, one block of answers for each VERB: the size and content of an answer
//                  per text. A VERB is u or p and FLAG as above (ids of 32 bits; no valid answer
//                  has the size 2^32-1, which is an error), or d or i and FLAG for the text of the
//                  ids that the first VERB gave
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "formats/mapped_file.h"
#include "loaders/tokenizer/gguf_fields.h"
#include "loaders/tokenizer/tokenizer.h"

namespace {

using namespace sluice;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Result<Tokenizer> Load(const std::string& kind, const std::string& path) {
  if (kind == "json") return Tokenizer::FromJson(ReadFile(path));
  if (kind == "gguf") {
    Result<std::unique_ptr<ReadOnlyFile>> opened = ReadOnlyFile::Open(path);
    if (!opened.ok()) return opened.status();
    Result<GgufFile> file = GgufFile::Read(**opened);
    if (!file.ok()) return file.status();
    Result<GgufTokenizerFields> fields = TokenizerFieldsOfGguf(*file);
    if (!fields.ok()) return fields.status();
    return Tokenizer::FromGguf(*fields);
  }
  const std::string files[] = {ReadFile(path + "/tokenizer.json"),
                               ReadFile(path + "/tokenizer_config.json"),
                               ReadFile(path + "/special_tokens_map.json"),
                               ReadFile(path + "/generation_config.json"),
                               ReadFile(path + "/config.json"),
                               ReadFile(path + "/tokenizer.model")};
  return Tokenizer::FromHuggingFace({files[0], files[1], files[2], files[3], files[4], files[5]});
}

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

std::string ToHex(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const char c : bytes) {
    hex.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
    hex.push_back(kDigits[static_cast<unsigned char>(c) & 15]);
  }
  return hex;
}

std::string EncodeRequest(const Tokenizer& tokenizer, std::istream& request, bool add_special) {
  std::vector<std::pair<std::string, bool>> texts;
  for (std::string run; request >> run;) texts.emplace_back(FromHex(run.substr(1)), run[0] == 'p');
  std::vector<TokenizerText> runs;
  for (const auto& [text, parse_special] : texts) runs.push_back({text, parse_special});
  Result<std::vector<int32_t>> ids = tokenizer.Encode(runs, add_special);
  if (!ids.ok()) return "error " + ids.status().message();
  std::string line;
  for (const int32_t id : *ids) line += std::to_string(id) + ' ';
  return line;
}

void AppendSized(std::string_view bytes, std::string& to) {
  const auto size = static_cast<uint32_t>(bytes.size());
  to.append(reinterpret_cast<const char*>(&size), sizeof size);
  to.append(bytes);
}

std::vector<std::string> ReadTexts(std::istream& from, size_t count) {
  std::vector<std::string> texts(count);
  for (std::string& text : texts) {
    uint32_t size = 0;
    from.read(reinterpret_cast<char*>(&size), sizeof size);
    text.resize(from ? size : 0);
    from.read(text.data(), static_cast<std::streamsize>(text.size()));
  }
  return texts;
}

std::string DecodeInSteps(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  Detokenizer detokenizer(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Append(id);
  return text + detokenizer.Finish();
}

// The ids of the first verb are kept for those that decode.
std::string AnswerBatch(const Tokenizer& tokenizer, std::istringstream& request) {
  size_t count = 0;
  request >> count;
  const std::vector<std::string> texts = ReadTexts(std::cin, count);
  std::vector<std::vector<int32_t>> first;
  std::string answers;
  for (std::string verb; request >> verb;) {
    const bool flag = verb.ends_with('1');
    const bool encodes = verb[0] == 'u' || verb[0] == 'p';
    const bool is_first = encodes && first.empty();
    for (size_t i = 0; i < count; ++i) {
      if (!encodes) {
        AppendSized(verb[0] == 'd' ? tokenizer.Decode(first[i], flag)
                                   : DecodeInSteps(tokenizer, first[i], flag),
                    answers);
        continue;
      }
      Result<std::vector<int32_t>> ids = tokenizer.Encode(texts[i], verb[0] == 'p', flag);
      if (ids.ok()) {
        AppendSized({reinterpret_cast<const char*>(ids->data()), ids->size() * sizeof(int32_t)},
                    answers);
      } else {
        answers.append(4, '\xFF');
      }
      if (is_first) first.push_back(ids.ok() ? *std::move(ids) : std::vector<int32_t>());
    }
  }
  return answers;
}

std::string Answer(const Tokenizer& tokenizer, const std::string& line) {
  std::istringstream request(line);
  std::string verb;
  bool flag = false;
  request >> verb >> flag;
  if (verb == "e") return EncodeRequest(tokenizer, request, flag);
  if (verb == "j") return tokenizer.ToJson();
  if (verb == "s") {
    std::string answer = std::to_string(tokenizer.vocab_size()) + ' ' +
                         std::to_string(tokenizer.bos_id().value_or(-1));
    for (const int32_t id : tokenizer.eos_ids()) answer += ' ' + std::to_string(id);
    return answer;
  }
  std::vector<int32_t> ids;
  for (int32_t id = 0; request >> id;) ids.push_back(id);
  if (verb == "d") return ToHex(tokenizer.Decode(ids, flag));
  return ToHex(DecodeInSteps(tokenizer, ids, flag));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: tokenize_lines hf|gguf|json PATH\n";
    return 2;
  }
  Result<Tokenizer> tokenizer = Load(argv[1], argv[2]);
  if (!tokenizer.ok()) {
    std::cerr << ErrorCodeName(tokenizer.status().code()) << ": " << tokenizer.status().message()
              << '\n';
    return 1;
  }
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    if (line.starts_with("b ")) {
      std::istringstream request(line.substr(2));
      std::cout << AnswerBatch(*tokenizer, request) << std::flush;
    } else {
      std::cout << Answer(*tokenizer, line) << std::endl;
    }
  }
}
