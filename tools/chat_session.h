// A conversation with a model: what a line that the user typed does.
#ifndef SLUICE_TOOLS_CHAT_SESSION_H_
#define SLUICE_TOOLS_CHAT_SESSION_H_

#include <memory>
#include <string>

#include "formats/status.h"
#include "sluice/engine.h"
#include "tools/conversation.h"
#include "tools/options.h"

namespace sluice {

class ChatSession {
 public:
  // The engine outlives the session and has a chat template.
  ChatSession(Engine* engine, GenerationOptions generation, const std::string& system, bool quiet);

  // A message, or a command that starts with '/'. What the model says goes to stdout, all else to
  // stderr. Errors leave the conversation as it was before: kLimitExceeded (the context is full),
  // kInvalidArgument (an unknown command), kIo, kCorrupt (of /save and /load), the engine's.
  Status Handle(const std::string& text);

  // After /bye.
  bool ended() const { return ended_; }
  // Why no further line can be answered: stdout is gone.
  const Status& output_status() const { return output_status_; }

 private:
  Status Command(const std::string& name, const std::string& argument);
  Status Say(const std::string& text);
  Status Regenerate();
  Status Answer();
  Status Save(const std::string& path) const;
  Status Load(const std::string& path);
  void PrintStats() const;

  Engine* engine_;
  GenerationOptions generation_;
  Conversation conversation_;
  bool quiet_;
  bool ended_ = false;
  Status output_status_;
  uint64_t answers_ = 0;
  int64_t tokens_ = 0;
  double decode_s_ = 0;
  std::unique_ptr<Completion> last_;
};

}  // namespace sluice

#endif  // SLUICE_TOOLS_CHAT_SESSION_H_
