// The messages of a chat. A value; knows no model.
#ifndef SLUICE_TOOLS_CONVERSATION_H_
#define SLUICE_TOOLS_CONVERSATION_H_

#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "sluice/engine.h"

namespace sluice {

class Conversation {
 public:
  // "" removes the system message. What was said stays.
  void SetSystem(const std::string& text);
  void AddUser(const std::string& text) { messages_.push_back({"user", text}); }
  void AddAssistant(const std::string& text) { messages_.push_back({"assistant", text}); }

  // Takes back the last message of the user and what followed. False if there is none.
  bool Undo();
  // Takes back the last answer, so that the last message is the user's. False if there is none.
  bool ForgetAnswer();
  // All but the system message.
  void Clear();

  // The system message first, if there is one.
  std::vector<Message> messages() const;
  size_t user_messages() const;

  // {"messages": [{"role": ..., "content": ...}, ...]}
  std::string ToJson() const;
  // The text is untrusted. Error: kCorrupt.
  static Result<Conversation> FromJson(std::string_view json);

 private:
  std::string system_;
  std::vector<Message> messages_;
};

}  // namespace sluice

#endif  // SLUICE_TOOLS_CONVERSATION_H_
