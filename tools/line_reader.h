// Lines that a user types: with editing and history on a terminal, plainly elsewhere.
#ifndef SLUICE_TOOLS_LINE_READER_H_
#define SLUICE_TOOLS_LINE_READER_H_

#include <memory>
#include <string>

#include "formats/status.h"

namespace sluice {

class LineReader {
 public:
  enum class Event { kLine, kEnd, kInterrupt };

  virtual ~LineReader() = default;
  // One line of UTF-8 without its newline. kInterrupt after Ctrl-C, which throws the line away.
  // Error: kIo.
  virtual Result<Event> Read(const std::string& prompt, std::string* line) = 0;
};

// Editing (libedit) when stdin and stderr are terminals; prompts go to stderr. The history is kept
// in `history_file`, which only the user can read; "" keeps none.
std::unique_ptr<LineReader> MakeLineReader(const std::string& history_file);

}  // namespace sluice

#endif  // SLUICE_TOOLS_LINE_READER_H_
