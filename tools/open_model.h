// From the options of a verb to an engine, with a progress bar, and what to tell about it.
#ifndef SLUICE_TOOLS_OPEN_MODEL_H_
#define SLUICE_TOOLS_OPEN_MODEL_H_

#include <memory>
#include <string>

#include "formats/status.h"
#include "sluice/engine.h"
#include "tools/options.h"

namespace sluice {

// ", prefill in bf16": how prompts are multiplied, where that is not as all else is.
std::string PrefillText(const EngineInfo& info);

// Converts MODEL first if need be, loads it, and prints what was chosen automatically on stderr
// unless quiet. Errors: those of SluiceFileFor and Engine::Open.
// `path`, if it is not null, becomes that of the .sluice file.
Result<std::unique_ptr<Engine>> OpenModel(const ModelOptions& options, std::string* path = nullptr);

// What --trace asks for, at the end. Error: kIo.
Status WriteTraceIfWanted(const ModelOptions& options, const Engine& engine);

// "prompt 12 tokens, 45.1 tokens/s; answer 64 tokens, 23.4 tokens/s; context 76 of 2048; ..."
std::string TimingsLine(const Engine& engine, const Completion& completion);
// Tokens of the context that the completion's sequence takes.
int64_t ContextUsed(const Completion& completion);

}  // namespace sluice

#endif  // SLUICE_TOOLS_OPEN_MODEL_H_
