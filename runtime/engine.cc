#include "sluice/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <new>

#include "kernels/select.h"
#include "loaders/chat_template/chat_template_input.h"
#include "offload/processors.h"
#include "offload/system.h"
#include "runtime/engine_impl.h"
#include "runtime/engine_options.h"

namespace sluice {
namespace {

constexpr int64_t kDefaultContext = 8192;

Status Validate(const EngineOptions& options) {
  const auto wrong = [](const std::string& what) {
    return Status(ErrorCode::kInvalidArgument, what);
  };
  if (options.context_tokens < 0 || options.context_tokens > INT32_MAX) {
    return wrong(fmt::format("a context of {} tokens", options.context_tokens));
  }
  if (options.threads < 0 || options.threads > 1024) {
    return wrong(fmt::format("{} threads", options.threads));
  }
  if (options.max_sequences < 1 || options.max_sequences > 4096) {
    return wrong(fmt::format("{} sequences at once", options.max_sequences));
  }
  if (options.max_batch_tokens < 0 || options.max_batch_tokens > 16384) {
    return wrong(fmt::format("a batch of {} tokens", options.max_batch_tokens));
  }
  const int64_t batch_tokens =
      options.max_batch_tokens > 0 ? options.max_batch_tokens : kUsualBatchTokens;
  if (batch_tokens < options.max_sequences) {
    return wrong(fmt::format("a batch of {} tokens for {} sequences at once", batch_tokens,
                             options.max_sequences));
  }
  return ValidateGpuOptions(options);
}

}  // namespace

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "none";
}

const char* PrefillTypeName(PrefillType type) {
  switch (type) {
    case PrefillType::kInt8:
      return "int8";
    case PrefillType::kBf16:
      return "bf16";
    case PrefillType::kF16:
      return "f16";
  }
  return "int8";
}

Result<std::unique_ptr<Engine>> Engine::Open(const EngineOptions& options) {
  return EngineImpl::Open(options);
}

Result<std::unique_ptr<Engine>> EngineImpl::Open(const EngineOptions& options,
                                                 const GpuOpener& open_gpu,
                                                 TableSelector select_table) {
  if (Status status = Validate(options); !status.ok()) return status;
  try {
    std::unique_ptr<EngineImpl> engine(new EngineImpl());
    if (Status s = engine->Load(options, open_gpu, select_table); !s.ok()) return s;
    return std::unique_ptr<Engine>(std::move(engine));
  } catch (const std::bad_alloc&) {
    return Status(ErrorCode::kOutOfMemory, "no memory for the engine's tables");
  }
}

Status EngineImpl::Load(const EngineOptions& options, const GpuOpener& open_gpu,
                        TableSelector select_table) {
  const auto start = std::chrono::steady_clock::now();
  if (options.isa != "cuda") {
    const Result<const OpTable*> ops = select_table(options.isa);
    if (!ops.ok()) return ops.status();
    processor_ops_ = *ops;
    if (options.prefill == PrefillType::kBf16) {
      if (Status s = CheckBf16(**ops); !s.ok()) return s.WithContext("prefill in bf16");
    }
  }
  Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(options.model_path);
  if (!file.ok()) return file.status();
  file_ = *file;
  const ModelConfig& config = file_->config();
  Result<ModelDescription> description = DescribeModel(config);
  if (!description.ok()) return description.status().WithContext(options.model_path);
  description_ = std::move(*description);
  if (Status status = LoadText(); !status.ok()) return status.WithContext(options.model_path);

  info_.architecture = config.architecture;
  info_.model_name = config.name;
  info_.threads = options.threads > 0 ? options.threads : UsableCores();
  info_.model_context_tokens = config.context_length;
  info_.context_tokens = options.context_tokens > 0
                             ? options.context_tokens
                             : std::min(config.context_length, kDefaultContext);
  if (!description_.position_tensor.empty() && info_.context_tokens > config.context_length) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a context of {} tokens: the model has learned positions for {}",
                              info_.context_tokens, config.context_length));
  }
  info_.vocab_size = config.vocab_size;
  info_.weight_bytes = file_->source().size_bytes() - file_->metadata_size_bytes();

  if (options.trace) trace_ = std::make_unique<Trace>();
  team_ = std::make_unique<ThreadTeam>(info_.threads);
  info_.threads = team_->threads();
  EngineOptions chosen = options;
  if (chosen.max_batch_tokens == 0) {
    chosen.max_batch_tokens = DefaultBatchTokens(options.prefill == PrefillType::kF16,
                                                 info_.context_tokens, options.max_sequences);
  }
  if (Status s = LoadOnBestDevice(chosen, open_gpu); !s.ok()) return s;
  scheduler_ =
      std::make_unique<Scheduler>(kv_cache_.get(), chosen.max_sequences, chosen.max_batch_tokens,
                                  /*only_prompts=*/chosen.prefill != PrefillType::kInt8);
  info_.load_s = SecondsBetween(start, std::chrono::steady_clock::now());
  return Status();
}

Status EngineImpl::LoadText() {
  if (!file_->tokenizer_json().empty()) {
    Result<Tokenizer> tokenizer = Tokenizer::FromJson(file_->tokenizer_json());
    if (!tokenizer.ok()) return tokenizer.status().WithContext("tokenizer");
    if (tokenizer->vocab_size() > file_->config().vocab_size) {
      return Status(ErrorCode::kCorrupt,
                    fmt::format("the tokenizer has {} tokens, the model {}",
                                tokenizer->vocab_size(), file_->config().vocab_size));
    }
    tokenizer_ = std::move(*tokenizer);
    info_.has_tokenizer = true;
  }
  if (!file_->chat_template().empty()) {
    Result<ChatTemplate> chat_template = ChatTemplate::Parse(std::string(file_->chat_template()));
    if (!chat_template.ok()) return chat_template.status().WithContext("chat template");
    chat_template_ = std::move(*chat_template);
    info_.has_chat_template = true;
  }
  return Status();
}

std::vector<TierReport> EngineImpl::tiers() const {
  const StoreStats stats = store_->stats();
  std::vector<TierReport> reports;
  if (gpu_.device != nullptr) {
    reports.push_back({"vram", stats.vram.resident_bytes, stats.vram.read_bytes,
                       stats.vram.late_bytes, stats.vram.stall_s});
  }
  reports.push_back({"ram", stats.ram.resident_bytes, stats.ram.read_bytes, stats.ram.late_bytes,
                     stats.ram.stall_s});
  reports.push_back({"disk", stats.disk.resident_bytes, stats.disk.read_bytes,
                     stats.disk.late_bytes, stats.disk.stall_s});
  return reports;
}

Status EngineImpl::WriteTrace(const std::string& path) const {
  if (!trace_) return Status(ErrorCode::kInvalidArgument, "the engine keeps no trace");
  return trace_->Write(path);
}

Result<std::vector<int32_t>> EngineImpl::Tokenize(std::string_view text, bool parse_special,
                                                  bool add_special) const {
  if (!tokenizer_) {
    return Status(ErrorCode::kUnsupported, file_->path() + ": the model has no tokenizer");
  }
  return tokenizer_->Encode(text, parse_special, add_special);
}

Result<std::string> EngineImpl::Detokenize(std::span<const int32_t> ids) const {
  if (!tokenizer_) {
    return Status(ErrorCode::kUnsupported, file_->path() + ": the model has no tokenizer");
  }
  return tokenizer_->Decode(ids, /*skip_special=*/false);
}

Result<std::vector<int32_t>> EngineImpl::ApplyChatTemplate(std::span<const Message> messages,
                                                           bool add_generation_prompt) const {
  if (!tokenizer_ || !chat_template_) {
    return Status(ErrorCode::kUnsupported, file_->path() + ": the model has no chat template");
  }
  ChatTemplateInput input;
  for (const Message& message : messages) {
    input.messages.push_back({message.role, message.content, nullptr});
  }
  input.add_generation_prompt = add_generation_prompt;
  if (const auto bos = tokenizer_->bos_id()) input.bos_token = tokenizer_->TokenBytes(*bos);
  if (!tokenizer_->eos_ids().empty()) {
    input.eos_token = tokenizer_->TokenBytes(tokenizer_->eos_ids()[0]);
  }
  input.now = std::time(nullptr);
  Result<std::vector<TemplateRun>> runs = chat_template_->Render(input);
  if (!runs.ok()) return runs.status().WithContext("chat template");
  std::vector<TokenizerText> texts;
  texts.reserve(runs->size());
  for (const TemplateRun& run : *runs) texts.push_back({run.text, !run.from_user});
  // The template writes BOS itself where the model wants one.
  return tokenizer_->Encode(texts, /*add_special=*/false);
}

}  // namespace sluice
