// Stop strings in text that comes in increments.
#ifndef SLUICE_RUNTIME_STOP_MATCHER_H_
#define SLUICE_RUNTIME_STOP_MATCHER_H_

#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// Holds back what may become a stop string; never lets a part of one through. The result does not
// depend on how the text is divided: the match that ends first wins, of those the longest.
// Thread-compatible.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stop_strings);

  // The text that can be shown now. Once stopped, everything is swallowed.
  std::string Append(std::string_view text);
  // What was held back at the end of the text; "" once stopped.
  std::string Finish();

  bool stopped() const { return stopped_; }
  const std::string& stop_string() const { return stop_string_; }  // "" unless stopped

 private:
  // Length of the longest end of held_ that begins a stop string.
  size_t PossibleBeginning() const;

  std::vector<std::string> stop_strings_;
  std::string held_;
  bool stopped_ = false;
  std::string stop_string_;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_STOP_MATCHER_H_
