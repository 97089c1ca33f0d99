// sluice eval: perplexity of a text, or the logits of given tokens.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "formats/npy.h"
#include "formats/sluice_file.h"
#include "loaders/tokenizer/tokenizer.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/model_cache.h"
#include "tools/open_model.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/perplexity.h"
#include "tools/progress.h"
#include "tools/token_lines.h"

namespace sluice {
namespace {

constexpr int64_t kDefaultWindow = 512;

struct EvalOptions {
  ModelOptions model;
  std::string text;
  std::string tokens;
  std::string logits;
  int64_t windows = 0;
  bool json = false;
};

// Runs the engine over the sequences; the callback's error, Ctrl-C and the engine's error in turn.
Status Evaluate(Engine* engine, std::span<const std::vector<int32_t>> sequences,
                const std::function<Status(int64_t sequence, int64_t position,
                                           std::span<const float> logits)>& on_logits) {
  Status failed;
  const CancelOnInterrupt cancel(engine);
  const Status status = engine->Evaluate(
      sequences, [&](int64_t sequence, int64_t position, std::span<const float> logits) {
        failed = on_logits(sequence, position, logits);
        return failed.ok() && !Interrupted();
      });
  if (!failed.ok()) return failed;
  return Interrupted() ? InterruptedStatus() : status;
}

// The BOS that the model's tokenizer puts in front of a text, if it does.
Result<std::optional<int32_t>> BosToken(const std::string& sluice_path) {
  Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(sluice_path);
  if (!file.ok()) return file.status();
  Result<Tokenizer> tokenizer = Tokenizer::FromJson((*file)->tokenizer_json());
  if (!tokenizer.ok()) return tokenizer.status();
  return tokenizer->adds_bos() ? tokenizer->bos_id() : std::nullopt;
}

Status PrintPerplexity(const EvalOptions& options, const PerplexitySum& sum, size_t windows,
                       int64_t context) {
  if (options.json) {
    nlohmann::ordered_json object = {
        {"perplexity", sum.perplexity()}, {"tokens_scored", sum.count()}, {"windows", windows}};
    if (options.model.prefill != "int8") object["prefill"] = options.model.prefill;
    return WriteStdout(object.dump(2) + "\n");
  }
  return WriteStdout(fmt::format("perplexity {:.4f} ({} tokens scored in {} windows of {})\n",
                                 sum.perplexity(), sum.count(), windows, context));
}

Status EvaluateText(EvalOptions options) {
  Result<std::string> text = ReadInputFile(options.text);
  if (!text.ok()) return text.status();
  if (options.model.context_tokens == 0) options.model.context_tokens = kDefaultWindow;
  const int64_t context = options.model.context_tokens;
  Result<std::string> path = SluiceFileFor(options.model.model, options.model.quiet);
  if (!path.ok()) return path.status();
  options.model.model = *path;
  Result<std::optional<int32_t>> bos = BosToken(*path);
  if (!bos.ok()) return bos.status();
  Result<std::unique_ptr<Engine>> engine = OpenModel(options.model);
  if (!engine.ok()) return engine.status();
  Result<std::vector<int32_t>> tokens = (*engine)->Tokenize(*text, false, false);
  if (!tokens.ok()) return tokens.status();
  Result<std::vector<std::vector<int32_t>>> windows =
      PerplexityWindows(*tokens, *bos, context, options.windows);
  if (!windows.ok()) return windows.status().WithContext(options.text);

  PerplexitySum sum;
  Progress bar("evaluating", Progress::Unit::kCount, options.model.quiet);
  const Status status =
      Evaluate(engine->get(), *windows,
               [&](int64_t sequence, int64_t position, std::span<const float> logits) -> Status {
                 const std::vector<int32_t>& window = (*windows)[sequence];
                 if (!IsScored(position, context)) return Status();
                 if (Status s = sum.Add(logits, window[position + 1]); !s.ok()) {
                   return s.WithContext(fmt::format("window {}, position {}", sequence, position));
                 }
                 if (position == context - 2) {
                   bar.Update(sequence + 1, windows->size(),
                              fmt::format("perplexity {:.4f}", sum.perplexity()));
                 }
                 return Status();
               });
  bar.Clear();
  if (!status.ok()) return status;
  if (Status s = WriteTraceIfWanted(options.model, **engine); !s.ok()) return s;
  return PrintPerplexity(options, sum, windows->size(), context);
}

Status EvaluateTokens(EvalOptions options) {
  Result<std::string> text = ReadInputFile(options.tokens);
  if (!text.ok()) return text.status();
  Result<std::vector<std::vector<int32_t>>> lines = ParseTokenLines(*text);
  if (!lines.ok()) return lines.status().WithContext(options.tokens);
  const size_t length = (*lines)[0].size();
  if (options.model.context_tokens == 0) options.model.context_tokens = length;
  Result<std::unique_ptr<Engine>> engine = OpenModel(options.model);
  if (!engine.ok()) return engine.status();
  const uint64_t vocab = (*engine)->info().vocab_size;
  for (const std::vector<int32_t>& line : *lines) {
    for (int32_t id : line) {
      if (id < 0 || static_cast<uint64_t>(id) >= vocab) {
        return Status(ErrorCode::kInvalidArgument,
                      fmt::format("{}: token id {} is outside the vocabulary of {}", options.tokens,
                                  id, vocab));
      }
    }
  }
  Result<NpyWriter> npy = NpyWriter::Create(options.logits, {lines->size(), length, vocab});
  if (!npy.ok()) return npy.status();
  Progress bar("evaluating", Progress::Unit::kCount, options.model.quiet);
  const Status status =
      Evaluate(engine->get(), *lines,
               [&](int64_t sequence, int64_t position, std::span<const float> logits) {
                 bar.Update(sequence * length + position + 1, lines->size() * length);
                 return npy->Append(logits);
               });
  if (!status.ok()) return status;
  if (Status s = WriteTraceIfWanted(options.model, **engine); !s.ok()) return s;
  return npy->Finish();
}

Status Eval(const EvalOptions& options) {
  if (options.text.empty() == options.tokens.empty()) {
    return Status(ErrorCode::kInvalidArgument, "give either --text FILE or --tokens FILE");
  }
  return options.text.empty() ? EvaluateTokens(options) : EvaluateText(options);
}

}  // namespace

void AddEvalVerb(Cli* cli) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = cli->AddVerb(
      "eval", "Measures perplexity, or writes the logits of given tokens",
      "  sluice eval model.sluice --text wiki.test.raw\n"
      "  sluice eval model.sluice --text wiki.test.raw --ctx 2048 --windows 10 --json\n"
      "  sluice eval model.sluice --tokens ids.txt --logits logits.npy\n",
      [options] { return Eval(*options); });
  AddModelOptions(verb, &options->model, "Tokens of a window (default: 512)");
  const DeclaredOption text =
      AddTextOption(verb, "--text", &options->text, "The text whose perplexity is measured")
          .Type("FILE");
  const DeclaredOption tokens =
      AddTextOption(verb, "--tokens", &options->tokens, "Lines of token ids, all of one length")
          .Type("FILE");
  const DeclaredOption logits =
      AddTextOption(verb, "--logits", &options->logits,
                    "Where to write float32 [sequences, tokens, vocabulary] as .npy")
          .Type("FILE");
  const DeclaredOption windows =
      AddCountOption(verb, "--windows", &options->windows, "Only the first N windows of the text");
  const DeclaredOption json = AddFlag(verb, "--json", &options->json, "As a JSON object");
  text.Excludes(tokens).Excludes(logits);
  logits.Needs(tokens);
  tokens.Needs(logits);
  windows.Needs(text);
  json.Needs(text);
}

}  // namespace sluice
