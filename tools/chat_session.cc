#include "tools/chat_session.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "formats/mapped_file.h"
#include "tools/interrupt.h"
#include "tools/open_model.h"
#include "tools/output.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxSavedBytes = 64u << 20;

constexpr char kHelp[] =
    "/help           this list\n"
    "/system TEXT    sets the system message; without TEXT removes it\n"
    "/save FILE      writes the conversation as JSON\n"
    "/load FILE      takes up a saved conversation\n"
    "/stats          context used, speed, memory\n"
    "/regen          another answer to the last message\n"
    "/undo           takes back the last message and its answer\n"
    "/clear          forgets the conversation, keeps the system message\n"
    "/bye            leaves, as Ctrl-D does\n"
    "\"\"\"             begins a message of several lines, and ends it\n"
    "Ctrl-C          stops an answer and keeps what was said; twice: leaves";

Status NeedsFile(const char* command) {
  return Status(ErrorCode::kInvalidArgument, fmt::format("{} needs the name of a file", command));
}

}  // namespace

ChatSession::ChatSession(Engine* engine, GenerationOptions generation, const std::string& system,
                         bool quiet)
    : engine_(engine), generation_(std::move(generation)), quiet_(quiet) {
  conversation_.SetSystem(system);
}

Status ChatSession::Handle(const std::string& text) {
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) return Status();
  if (text[0] != '/') return Say(text);
  const size_t space = text.find_first_of(" \t");
  if (space == std::string::npos) return Command(text, "");
  const size_t begin = text.find_first_not_of(" \t", space);
  const size_t end = text.find_last_not_of(" \t\r");
  return Command(text.substr(0, space),
                 begin == std::string::npos ? "" : text.substr(begin, end + 1 - begin));
}

Status ChatSession::Command(const std::string& name, const std::string& argument) {
  if (name == "/system") {
    conversation_.SetSystem(argument);
    return Status();
  }
  if (name == "/save") return argument.empty() ? NeedsFile("/save") : Save(argument);
  if (name == "/load") return argument.empty() ? NeedsFile("/load") : Load(argument);
  if (!argument.empty() || name == "/") {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} {} is no command; /help lists them", name, argument));
  }
  if (name == "/regen") return Regenerate();
  if (name == "/help") {
    PrintLine(kHelp);
  } else if (name == "/stats") {
    PrintStats();
  } else if (name == "/undo") {
    if (!conversation_.Undo()) {
      return Status(ErrorCode::kInvalidArgument, "there is nothing to take back");
    }
  } else if (name == "/clear") {
    conversation_.Clear();
  } else if (name == "/bye") {
    ended_ = true;
  } else {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} is no command; /help lists them", name));
  }
  return Status();
}

Status ChatSession::Say(const std::string& text) {
  const Conversation before = conversation_;
  conversation_.AddUser(text);
  Status status = Answer();
  if (!status.ok()) conversation_ = before;
  return status;
}

Status ChatSession::Regenerate() {
  const Conversation before = conversation_;
  if (!conversation_.ForgetAnswer()) {
    return Status(ErrorCode::kInvalidArgument, "there is no message to answer");
  }
  Status status = Answer();
  if (!status.ok()) conversation_ = before;
  return status;
}

// To the last message, which is the user's.
Status ChatSession::Answer() {
  Result<std::vector<int32_t>> prompt = engine_->ApplyChatTemplate(conversation_.messages());
  if (!prompt.ok()) return prompt.status();
  Request request;
  request.prompt = std::move(*prompt);
  request.sampling = generation_.sampling;
  request.sampling.seed = *generation_.seed + answers_;  // or /regen would say the same again
  request.max_new_tokens = generation_.max_new_tokens;
  request.stop = generation_.stop;
  request.ignore_eos = generation_.ignore_eos;
  request.keep_cache = true;
  const CancelOnInterrupt cancel(engine_);
  Result<Completion> completion = engine_->Generate(request, [&](const TextDelta& delta) {
    if (!delta.text.empty()) output_status_ = WriteStdout(delta.text);
    return output_status_.ok() && !Interrupted();
  });
  if (!completion.ok()) {
    if (completion.status().code() != ErrorCode::kLimitExceeded) return completion.status();
    return completion.status().WithContext(
        "the context is full (/undo, /clear, or a larger --ctx)");
  }
  ++answers_;
  tokens_ += completion->timings.decode_tokens;
  decode_s_ += completion->timings.decode_s;
  conversation_.AddAssistant(completion->text);
  if (output_status_.ok()) output_status_ = WriteStdout("\n");
  if (!output_status_.ok()) return output_status_;
  last_ = std::make_unique<Completion>(std::move(*completion));
  if (!quiet_) PrintLine("[" + TimingsLine(*engine_, *last_) + "]");
  if (last_->finish_reason == FinishReason::kLength) {
    PrintLine(ContextUsed(*last_) >= engine_->info().context_tokens
                  ? "[length: the context is full, the answer was cut; /undo or /clear make room]"
                  : "[length: the answer was cut at --max-tokens]");
  } else if (Interrupted()) {
    PrintLine("[stopped]");
  }
  return Status();
}

Status ChatSession::Save(const std::string& path) const {
  const std::string json = conversation_.ToJson();
  std::FILE* file = std::fopen(path.c_str(), "we");
  bool ok = file != nullptr && std::fwrite(json.data(), 1, json.size(), file) == json.size();
  if (file != nullptr) ok = std::fclose(file) == 0 && ok;
  if (ok) return Status();
  return Status(ErrorCode::kIo, fmt::format("write {}: {}", path, std::strerror(errno)));
}

Status ChatSession::Load(const std::string& path) {
  Result<std::string> json = ReadWholeFile(path, kMaxSavedBytes);
  if (!json.ok()) return json.status();
  Result<Conversation> conversation = Conversation::FromJson(*json);
  if (!conversation.ok()) return conversation.status().WithContext(path);
  conversation_ = std::move(*conversation);
  PrintLine(fmt::format("[{} messages of yours]", conversation_.user_messages()));
  return Status();
}

void ChatSession::PrintStats() const {
  const EngineInfo& info = engine_->info();
  PrintLine(fmt::format("context {} of {} tokens, {} messages of yours",
                        last_ == nullptr ? 0 : ContextUsed(*last_), info.context_tokens,
                        conversation_.user_messages()));
  PrintLine(fmt::format("{} answers, {} tokens, {:.1f} tokens/s", answers_, tokens_,
                        decode_s_ > 0 ? static_cast<double>(tokens_) / decode_s_ : 0.0));
  PrintLine(fmt::format("{}: isa {}{}, {} threads, weights {}, KV cache {}", info.architecture,
                        info.isa, PrefillText(info), info.threads, FormatBytes(info.weight_bytes),
                        FormatBytes(info.kv_cache_bytes)));
  for (const TierReport& tier : engine_->tiers()) {
    PrintLine(fmt::format("{}: {} resident, {} read, {:.2f} s stalled", tier.name,
                          FormatBytes(tier.resident_bytes), FormatBytes(tier.read_bytes),
                          tier.stall_s));
  }
}

}  // namespace sluice
