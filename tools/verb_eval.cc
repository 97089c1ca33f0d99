// sluice eval: perplexity of a text, or the logits of given tokens.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <mutex>
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

// Runs the engine over a sequence, with on_part as of Engine::EvaluateInParts but that it returns
// an error to end; the callback's error, Ctrl-C and the engine's error in turn.
template <typename OnPart>
Status Evaluate(Engine* engine, std::span<const int32_t> sequence, int64_t first_position,
                const OnPart& on_part) {
  std::mutex mutex;
  Status failed;
  const CancelOnInterrupt cancel(engine);
  const Status status = engine->EvaluateInParts(
      sequence, first_position,
      [&](int64_t position, int64_t first_id, std::span<const float> logits) {
        const Status s = on_part(position, first_id, logits);
        if (s.ok()) return !Interrupted();
        const std::lock_guard lock(mutex);
        if (failed.ok()) failed = s;
        return false;
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

Status AddWindow(Engine* engine, const std::vector<int32_t>& window, PerplexitySum* sum) {
  const auto context = static_cast<int64_t>(window.size());
  const int64_t first = context / 2;
  std::vector<NegativeLogLikelihood> losses;  // of the positions from first on
  for (int64_t i = first; i < context - 1; ++i) losses.emplace_back(window[i + 1]);
  const Status status =
      Evaluate(engine, window, first,
               [&](int64_t position, int64_t first_id, std::span<const float> logits) {
                 if (IsScored(position, context)) losses[position - first].Add(first_id, logits);
                 return Status();
               });
  if (!status.ok()) return status;
  for (int64_t i = first; i < context - 1; ++i) {
    if (Status s = sum->Add(losses[i - first].value()); !s.ok()) {
      return s.WithContext(fmt::format("position {}", i));
    }
  }
  return Status();
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
  Status status;
  for (size_t i = 0; i < windows->size() && status.ok(); ++i) {
    status = AddWindow(engine->get(), (*windows)[i], &sum);
    if (!status.ok()) status = status.WithContext(fmt::format("window {}", i));
    bar.Update(i + 1, windows->size(), fmt::format("perplexity {:.4f}", sum.perplexity()));
  }
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
  Status status;
  std::mutex mutex;
  for (size_t i = 0; i < lines->size() && status.ok(); ++i) {
    status = Evaluate(engine->get(), (*lines)[i], 0,
                      [&](int64_t position, int64_t first_id, std::span<const float> logits) {
                        const uint64_t row = i * length + static_cast<uint64_t>(position);
                        const std::lock_guard lock(mutex);
                        return npy->WriteAt(row * vocab + static_cast<uint64_t>(first_id), logits);
                      });
    bar.Update(i + 1, lines->size());
  }
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
