// The engine: a model, its memory and the loop that turns prompts into text. Start here.
//
//   sluice::EngineOptions options;
//   options.model_path = "model.sluice";
//   auto engine = sluice::Engine::Open(options);            // Result<std::unique_ptr<Engine>>
//   auto prompt = (*engine)->ApplyChatTemplate({{"user", "Hello"}});
//   sluice::Request request;
//   request.prompt = *prompt;
//   auto answer = (*engine)->Generate(request, [](const sluice::TextDelta& delta) {
//     std::fwrite(delta.text.data(), 1, delta.text.size(), stdout);
//     return true;
//   });
//
// Threads: an Engine is used by one thread at a time; Cancel may be called from any thread, and
// from a signal handler. The library never prints, exits or reads the environment.
#ifndef SLUICE_ENGINE_H_
#define SLUICE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "sluice/sampling.h"

namespace sluice {

enum class KvCacheType : uint8_t { kF32, kF16 };

// How weights come from the drive. Whatever is chosen, results are the same to the bit.
enum class WeightIo : uint8_t {
  kAuto,    // io_uring where the system allows it, else pread
  kUring,   // an error where it is refused
  kPread,   // threads that call pread
  kMapped,  // the whole file mapped read-only; each piece verified when it is first used
};

// How the matrix products of a prompt's tokens are computed; those of generated tokens, and of the
// head, always are as kInt8 says.
enum class PrefillType : uint8_t {
  kInt8,  // activations in int8 where weights are quantized, else in float32
  // Weights and activations rounded to bf16. A result still depends on the request alone, but it is
  // another one; and a prompt takes over from an earlier sequence only what was its prompt.
  kBf16,
  // Of a GPU: weights and activations rounded to f16 and multiplied by NVIDIA's cuBLASLt, which is
  // loaded if the machine has it. What is said of kBf16 holds, but that the library alone knows in
  // which order it adds; and sums are in float32.
  kF16,
};
const char* PrefillTypeName(PrefillType type);  // "int8", "bf16", "f16"

struct EngineOptions {
  std::string model_path;      // a .sluice file
  int64_t context_tokens = 0;  // 0: the model's own length, at most 8,192
  int threads = 0;             // 0: one for each core that the process may use
  KvCacheType kv_cache_type = KvCacheType::kF16;
  // "ref", "avx2", ...: the processor's operations of that name; "cuda": the GPU's. "": those of a
  // GPU that holds the whole model, else the fastest that the processor runs.
  std::string isa;
  PrefillType prefill = PrefillType::kInt8;  // kBf16: of the processor; kF16: of a GPU
  WeightIo io = WeightIo::kAuto;
  // Bound on all that the engine holds: weights, KV cache, activations, ring, tokenizer. 0: what is
  // free, less a margin. Weights that do not fit stream from disk in every pass.
  uint64_t ram_bytes = 0;
  // Bound on the memory that the engine takes of a GPU, context and kernels included. 0: no GPU is
  // used. None: what is free there, less a margin; a model that does not fit is then computed by
  // the processor.
  std::optional<uint64_t> vram_bytes;
  uint64_t ring_bytes = uint64_t{128} << 20;  // that streaming weights pass through, at most
  bool trace = false;                         // keeps what WriteTrace writes
  std::string place;                          // rules that override placement (offload/placement.h)
  int64_t max_sequences = 1;                  // that run at once
  // Of one pass, at least max_sequences; longer prompts are prefilled in chunks. 0: 512; with
  // prompts in f16 as many as all contexts hold, from 512 up to 4,096.
  int64_t max_batch_tokens = 0;
  // Called while weights are read, with bytes done and in all; false ends the loading.
  std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> load_progress;
};

// What was chosen and what the model is.
struct EngineInfo {
  std::string architecture;
  std::string model_name;
  std::string isa;
  PrefillType prefill = PrefillType::kInt8;
  std::string f16_library;  // that multiplies prompts in f16; "" where none does
  std::string isa_note;     // why a faster table that the processor advertises was not taken; or ""
  int threads = 0;
  int64_t context_tokens = 0;
  int64_t model_context_tokens = 0;
  int64_t vocab_size = 0;
  bool has_tokenizer = false;
  bool has_chat_template = false;
  std::string io;                 // "io_uring, O_DIRECT, registered buffers"
  uint64_t ram_budget_bytes = 0;  // what ram_bytes says, or what was found
  uint64_t weight_bytes = 0;
  uint64_t resident_bytes = 0;  // of weights in RAM
  uint64_t streamed_bytes = 0;  // of weights read from disk in every pass
  uint64_t ring_bytes = 0;      // 0 if nothing streams
  uint64_t overhead_bytes = 0;  // allowed for tokenizer, catalogue, threads
  uint64_t kv_cache_bytes = 0;
  uint64_t activation_bytes = 0;
  // The GPU that computes, with all weights in its memory; "" where the processor does, and then
  // why, if a GPU was looked for, and whether there is one that could be used.
  std::string gpu;
  std::string no_gpu_reason;
  bool gpu_found = false;
  uint64_t vram_budget_bytes = 0;
  uint64_t vram_bytes = 0;  // taken: weights, cache, activations, context and kernels
  double load_s = 0;
};

struct Message {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
};

struct Request {
  std::vector<int32_t> prompt;  // token ids, at least one
  SamplingOptions sampling;
  int64_t max_new_tokens = -1;  // -1: until the end of the context
  std::vector<std::string> stop;
  bool ignore_eos = false;
  // The answer goes on where the prompt's text ends, so the space that a SentencePiece tokenizer
  // writes before a word is kept at its beginning; else (a chat) it is left out.
  bool continues_text = false;
  // Keeps the sequence's cache after its end: the next request takes over the longest prefix that
  // its prompt has in common with it (all tokens are compared).
  bool keep_cache = false;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled };
const char* FinishReasonName(FinishReason reason);  // "stop", "length", "cancelled"

// One more token of an answer. `text` is what became certain with it: whole UTF-8 characters, no
// part of a stop string; it may be empty.
struct TextDelta {
  std::string_view text;
  SampledToken token;
};
// false ends the answer.
using DeltaCallback = std::function<bool(const TextDelta&)>;

struct Timings {
  double prefill_s = 0;
  double decode_s = 0;
  int64_t cached_tokens = 0;   // of the prompt, taken over from an earlier sequence
  int64_t prefill_tokens = 0;  // computed
  int64_t decode_tokens = 0;
  double prefill_tokens_per_s() const { return prefill_s > 0 ? prefill_tokens / prefill_s : 0; }
  double decode_tokens_per_s() const { return decode_s > 0 ? decode_tokens / decode_s : 0; }
};

struct Completion {
  std::string text;
  std::vector<int32_t> tokens;        // generated ids, the end token included if one came
  std::vector<SampledToken> details;  // one for each token
  FinishReason finish_reason = FinishReason::kNone;
  std::string stop_string;  // that ended it, if one did
  int64_t prompt_tokens = 0;
  Timings timings;
};

struct TierReport {
  std::string name;  // "vram", "ram", "disk"
  uint64_t resident_bytes = 0;
  uint64_t read_bytes = 0;
  uint64_t late_bytes = 0;  // that computation waited for
  double stall_s = 0;       // how long
};

// Logits of one position of one sequence; false ends the evaluation.
using LogitsCallback =
    std::function<bool(int64_t sequence, int64_t position, std::span<const float> logits)>;

// Some of the logits of one position: those of the ids from first_id on; false ends the evaluation.
using LogitsPartCallback =
    std::function<bool(int64_t position, int64_t first_id, std::span<const float> logits)>;

class Engine {
 public:
  // Errors: as SluiceFile::Open; kUnsupported (architecture, isa, prefill, io, no GPU where one
  // is asked for), kDoesNotFit with the smallest budget that would do, kInvalidArgument for options
  // out of range or against each other, kCancelled; kOutOfMemory and kIo of a GPU that was asked
  // for.
  static Result<std::unique_ptr<Engine>> Open(const EngineOptions& options);
  virtual ~Engine() = default;

  virtual const EngineInfo& info() const = 0;
  virtual std::vector<TierReport> tiers() const = 0;

  // Reads, waits and computation so far, as a Chrome trace. Errors: kIo; kInvalidArgument when the
  // engine was opened without `trace`.
  virtual Status WriteTrace(const std::string& path) const = 0;

  // Text to ids as ordinary text; special-token text only with parse_special; BOS and EOS as the
  // checkpoint says only with add_special. Error: kUnsupported without a tokenizer.
  virtual Result<std::vector<int32_t>> Tokenize(std::string_view text, bool parse_special,
                                                bool add_special) const = 0;
  virtual Result<std::string> Detokenize(std::span<const int32_t> ids) const = 0;
  // The prompt for an answer to these messages. What users wrote never becomes special tokens.
  // Errors: kUnsupported without a template, kInvalidArgument when the template raises.
  virtual Result<std::vector<int32_t>> ApplyChatTemplate(
      std::span<const Message> messages, bool add_generation_prompt = true) const = 0;

  // Queues a request. Errors: kInvalidArgument (empty prompt, id out of range, sampling options),
  // kLimitExceeded when the prompt does not fit the context, with both numbers.
  virtual Result<uint64_t> Submit(Request request, DeltaCallback on_delta) = 0;
  // Runs one pass over what is queued and running. False when there was nothing to do.
  // An error is the engine's (I/O, corrupt weights): all running requests end with it.
  virtual Result<bool> Step() = 0;
  // The end of a request: its completion, once. Null while it is running or unknown.
  virtual std::unique_ptr<Completion> TakeCompletion(uint64_t request_id) = 0;
  // Ends a request at the next pass with kCancelled; 0 ends all. A pass that is running stops
  // early.
  virtual void Cancel(uint64_t request_id = 0) noexcept = 0;

  // Submit and Step until the end.
  virtual Result<Completion> Generate(const Request& request, const DeltaCallback& on_delta) = 0;

  // Teacher-forced logits of every position of each sequence, in order, from an empty cache; what
  // requests with keep_cache left is dropped.
  virtual Status Evaluate(std::span<const std::vector<int32_t>> sequences,
                          const LogitsCallback& on_logits) = 0;
  // The same of one sequence, from first_position on, in parts: a head that streams is read once in
  // a pass, where Evaluate reads it for every few positions, and so weights are multiplied with
  // more tokens. Calls for different positions may come from several threads at once; those of one
  // position come one after another in the order of ids, and are all of them.
  virtual Status EvaluateInParts(std::span<const int32_t> sequence, int64_t first_position,
                                 const LogitsPartCallback& on_part) = 0;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_H_
