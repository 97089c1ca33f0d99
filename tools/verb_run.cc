// sluice run: one prompt, one answer.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/open_model.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/prediction.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

struct RunOptions {
  ModelOptions model;
  GenerationOptions generation;
  std::optional<std::string> prompt;
  std::optional<std::string> file;
  std::optional<std::string> system;
  bool raw = false;
  bool json = false;
};

Result<std::string> PromptText(const RunOptions& options) {
  if (options.prompt) return *options.prompt;
  if (options.file) return ReadInputFile(*options.file);
  if (StdinIsTerminal()) {
    return Status(ErrorCode::kInvalidArgument,
                  "no prompt: give -p TEXT or -f FILE, or pipe it to standard input; for a "
                  "conversation see sluice chat");
  }
  return ReadStdin();
}

Result<std::vector<int32_t>> PromptTokens(const RunOptions& options, const Engine& engine,
                                          const std::string& text) {
  const bool has_template = engine.info().has_chat_template;
  if (options.raw || (!has_template && !options.system)) {
    if (!options.raw && !options.model.quiet) {
      PrintLine("the model has no chat template: the prompt is completed as it is (--raw)");
    }
    return engine.Tokenize(text, /*parse_special=*/false, /*add_special=*/true);
  }
  std::vector<Message> messages;
  if (options.system) messages.push_back({"system", *options.system});
  messages.push_back({"user", text});
  return engine.ApplyChatTemplate(messages);
}

Json LogprobJson(const Engine& engine, int32_t id, float logprob) {
  Result<std::string> text = engine.Detokenize(std::span<const int32_t>(&id, 1));
  return {{"id", id}, {"text", text.ok() ? *text : ""}, {"logprob", logprob}};
}

Json CompletionJson(const Engine& engine, const Completion& completion, bool logprobs,
                    const std::optional<Plan>& plan) {
  const Timings& t = completion.timings;
  Json json = {{"text", completion.text},
               {"tokens", completion.tokens},
               {"finish_reason", FinishReasonName(completion.finish_reason)},
               {"prompt_tokens", completion.prompt_tokens},
               {"timings",
                {{"load_s", engine.info().load_s},
                 {"prefill_s", t.prefill_s},
                 {"prefill_tokens_per_s", t.prefill_tokens_per_s()},
                 {"decode_s", t.decode_s},
                 {"decode_tokens_per_s", t.decode_tokens_per_s()}}},
               {"tiers", Json::object()}};
  for (const TierReport& tier : engine.tiers()) {
    json["tiers"][tier.name] = {{"resident_bytes", tier.resident_bytes},
                                {"read_bytes", tier.read_bytes},
                                {"late_bytes", tier.late_bytes},
                                {"stall_s", tier.stall_s}};
  }
  if (engine.info().prefill != PrefillType::kInt8) {
    json["prefill"] = PrefillTypeName(engine.info().prefill);
  }
  if (plan) {
    json["plan"] = {{"prefill_tokens_per_s", plan->prefill.tokens_per_s},
                    {"decode_tokens_per_s", plan->decode.tokens_per_s},
                    {"bound", BoundName(plan->decode.bound)}};
  }
  if (!logprobs) return json;
  json["logprobs"] = Json::array();
  for (const SampledToken& token : completion.details) {
    Json entry = LogprobJson(engine, token.id, token.logprob);
    entry["top"] = Json::array();
    for (const auto& [id, logprob] : token.top) {
      entry["top"].push_back(LogprobJson(engine, id, logprob));
    }
    json["logprobs"].push_back(std::move(entry));
  }
  return json;
}

// Streams the answer, or prints the object at its end.
Status Answer(const RunOptions& options, const std::string& path, Engine* engine,
              const Request& request) {
  Status output;
  const CancelOnInterrupt cancel(engine);
  const DeltaCallback on_delta = [&](const TextDelta& delta) {
    if (!options.json && !delta.text.empty()) output = WriteStdout(delta.text);
    return output.ok() && !Interrupted();
  };
  Result<Completion> completion = engine->Generate(request, on_delta);
  if (!output.ok()) return output;
  if (!completion.ok()) return Interrupted() ? InterruptedStatus() : completion.status();
  if (Interrupted()) completion->finish_reason = FinishReason::kCancelled;
  const std::optional<Plan> plan = PredictionOf(*engine, options.model, path);
  const std::string end =
      options.json ? CompletionJson(*engine, *completion, request.sampling.logprobs >= 0, plan)
                             .dump(2, ' ', false, Json::error_handler_t::replace) +
                         "\n"
                   : "\n";
  if (Status s = WriteStdout(end); !s.ok()) return s;
  if (Status s = WriteTraceIfWanted(options.model, *engine); !s.ok()) return s;
  if (!options.model.quiet) PrintLine(TimingsLine(*engine, *completion));
  if (!options.model.quiet && plan) {
    PrintLine(fmt::format("planned: {:.1f} tokens/s, bound by the {}", plan->decode.tokens_per_s,
                          BoundName(plan->decode.bound)));
  }
  if (!options.model.quiet && completion->finish_reason == FinishReason::kLength) {
    PrintLine(ContextUsed(*completion) >= engine->info().context_tokens
                  ? "the answer ends where the context is full (--ctx)"
                  : "the answer ends at its bound (--max-tokens)");
  }
  return Interrupted() ? InterruptedStatus() : Status();
}

Status Run(RunOptions options) {
  if (Status s = options.generation.Resolve(); !s.ok()) return s;
  Result<std::string> text = PromptText(options);
  if (!text.ok()) return text.status();
  std::string path;
  Result<std::unique_ptr<Engine>> engine = OpenModel(options.model, &path);
  if (!engine.ok()) return engine.status();
  Result<std::vector<int32_t>> prompt = PromptTokens(options, **engine, *text);
  if (!prompt.ok()) return prompt.status();
  if (!options.model.quiet && options.generation.sampling.temperature > 0) {
    PrintLine(fmt::format("seed {}", *options.generation.seed));
  }
  Request request;
  request.prompt = std::move(*prompt);
  request.sampling = options.generation.sampling;
  request.max_new_tokens = options.generation.max_new_tokens;
  request.stop = options.generation.stop;
  request.ignore_eos = options.generation.ignore_eos;
  request.continues_text = options.raw || !(*engine)->info().has_chat_template;
  if (Interrupted()) return InterruptedStatus();
  return Answer(options, path, engine->get(), request);
}

}  // namespace

void AddRunVerb(Cli* cli) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* verb =
      cli->AddVerb("run", "Answers a prompt, or completes a text, once",
                   "  sluice run model.sluice -p 'Why is the sky blue?'\n"
                   "  sluice run model.sluice --raw -p 'Once upon a time' -n 64 --temp 0\n"
                   "  sluice run model.sluice -f question.txt --json | jq .timings\n"
                   "  git diff | sluice run model.sluice --system 'Summarize this change.'\n",
                   [options] { return Run(*options); });
  AddModelOptions(verb, &options->model, "Context length (default: the model's own, at most 8192)");
  const DeclaredOption prompt = AddTextOption(verb, "-p,--prompt", &options->prompt, "The prompt");
  const DeclaredOption file = AddTextOption(verb, "-f,--file", &options->file,
                                            "The prompt from a file (default: standard input)");
  prompt.Excludes(file);
  const DeclaredOption system =
      AddTextOption(verb, "--system", &options->system, "The system message before the prompt");
  const DeclaredOption raw =
      AddFlag(verb, "--raw", &options->raw, "No chat template: the text is completed");
  raw.Excludes(system);
  const DeclaredOption json =
      AddFlag(verb, "--json", &options->json, "One JSON object instead of the streamed text");
  AddGenerationOptions(verb, &options->generation);
  AddNumberOption(verb, "--logprobs", &options->generation.sampling.logprobs, 0, 100,
                  "a number from 0 to 100",
                  "The N most probable tokens at each place (100 at most)")
      .Needs(json)
      .Type("N")
      .Group("Sampling");
}

}  // namespace sluice
