// sluice tokenize: text to token ids and back, with a model's tokenizer and without its weights.
#include <fmt/format.h>

#include <memory>

#include "formats/sluice_file.h"
#include "loaders/checkpoint.h"
#include "loaders/tokenizer/tokenizer.h"
#include "tools/cli.h"
#include "tools/model_cache.h"
#include "tools/option_kinds.h"
#include "tools/output.h"
#include "tools/token_lines.h"

namespace sluice {
namespace {

struct Options {
  std::string model;
  std::string file = "-";
  bool parse_special = false;
  bool no_special = false;
  bool decode = false;
};

Result<Tokenizer> ReadTokenizer(const std::string& model) {
  Result<bool> is_sluice = IsSluiceFile(model);
  if (!is_sluice.ok()) return is_sluice.status();
  std::string json;
  if (*is_sluice) {
    Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(model);
    if (!file.ok()) return file.status();
    json = (*file)->tokenizer_json();
  } else {
    Result<Checkpoint> checkpoint = Checkpoint::Open(model);
    if (!checkpoint.ok()) return checkpoint.status();
    json = checkpoint->tokenizer_json();
  }
  if (json.empty()) return Status(ErrorCode::kUnsupported, model + " has no tokenizer");
  Result<Tokenizer> tokenizer = Tokenizer::FromJson(json);
  if (!tokenizer.ok()) return tokenizer.status().WithContext(model);
  return tokenizer;
}

Status Decode(const Tokenizer& tokenizer, const std::string& text) {
  Result<std::vector<int32_t>> ids = ParseTokens(text);
  if (!ids.ok()) return ids.status();
  for (int32_t id : *ids) {
    if (id >= tokenizer.vocab_size()) {
      return Status(
          ErrorCode::kInvalidArgument,
          fmt::format("token id {} is outside the vocabulary of {}", id, tokenizer.vocab_size()));
    }
  }
  return WriteStdout(tokenizer.Decode(*ids, /*skip_special=*/false));
}

Status Tokenize(const Options& options) {
  Result<Tokenizer> tokenizer = ReadTokenizer(options.model);
  if (!tokenizer.ok()) return tokenizer.status();
  Result<std::string> text = ReadInputFile(options.file);
  if (!text.ok()) return text.status();
  if (options.decode) return Decode(*tokenizer, *text);
  Result<std::vector<int32_t>> ids =
      tokenizer->Encode(*text, options.parse_special, !options.no_special);
  if (!ids.ok()) return ids.status();
  return WriteStdout(FormatTokens(*ids) + "\n");
}

}  // namespace

void AddTokenizeVerb(Cli* cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = cli->AddVerb("tokenize", "Turns text into token ids, or back",
                                "  echo -n 'Hello, world' | sluice tokenize model.sluice\n"
                                "  sluice tokenize model.sluice --file text.txt --no-special\n"
                                "  echo 1 22 333 | sluice tokenize model.sluice --decode\n",
                                [options] { return Tokenize(*options); });
  AddTextOption(verb, "MODEL", &options->model, "A .sluice file, or what convert reads").Required();
  AddTextOption(verb, "-f,--file", &options->file, "The text (default: standard input)")
      .Type("FILE");
  const DeclaredOption parse = AddFlag(verb, "--parse-special", &options->parse_special,
                                       "The text of special tokens becomes those tokens");
  const DeclaredOption no_special =
      AddFlag(verb, "--no-special", &options->no_special, "Add no BOS or EOS");
  AddFlag(verb, "--decode", &options->decode, "Ids to text").Excludes(parse).Excludes(no_special);
}

}  // namespace sluice
