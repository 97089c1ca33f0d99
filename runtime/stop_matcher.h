// Finds stop strings in text that arrives in pieces.
#ifndef SLUICE_RUNTIME_STOP_MATCHER_H_
#define SLUICE_RUNTIME_STOP_MATCHER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// The text stops at the first byte that completes a stop string (Knuth, Morris and Pratt, one
// automaton for each string); of several that end there the longest counts. How the text is cut
// into pieces makes no difference. Time: bytes of text times number of strings.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // Takes more text. Returns the part that can be shown now: what can no longer become part of a
  // stop string. Behind a stop string: nothing.
  std::string Append(std::string_view text);

  // The end of the text: returns what was held back. Nothing is held back afterwards.
  std::string Finish();

  bool stopped() const { return stopped_; }
  // The string that was found; empty when none was.
  const std::string& stop_string() const { return stop_string_; }

 private:
  struct Automaton {
    std::string text;
    std::vector<size_t> fallback;  // [i]: longest proper prefix of text that ends text[0, i]
    size_t matched = 0;            // bytes of `text` that the input ends with
    void Advance(char byte);
  };

  std::vector<Automaton> automata_;
  std::string held_;
  std::string stop_string_;
  bool stopped_ = false;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_STOP_MATCHER_H_
