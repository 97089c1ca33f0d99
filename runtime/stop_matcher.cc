#include "runtime/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace sluice {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    if (stop.empty()) continue;
    Automaton automaton;
    automaton.fallback.assign(stop.size(), 0);
    for (size_t i = 1, matched = 0; i < stop.size(); ++i) {
      while (matched > 0 && stop[i] != stop[matched]) matched = automaton.fallback[matched - 1];
      if (stop[i] == stop[matched]) ++matched;
      automaton.fallback[i] = matched;
    }
    automaton.text = std::move(stop);
    automata_.push_back(std::move(automaton));
  }
}

// REQUIRES: matched < text.size(): a full match ends the matcher.
void StopMatcher::Automaton::Advance(char byte) {
  while (matched > 0 && text[matched] != byte) matched = fallback[matched - 1];
  if (text[matched] == byte) ++matched;
}

std::string StopMatcher::Append(std::string_view text) {
  if (stopped_) return {};
  for (const char byte : text) {
    held_.push_back(byte);
    const Automaton* found = nullptr;
    for (Automaton& automaton : automata_) {
      automaton.Advance(byte);
      const bool complete = automaton.matched == automaton.text.size();
      if (complete && (found == nullptr || automaton.text.size() > found->text.size())) {
        found = &automaton;
      }
    }
    if (found == nullptr) continue;
    stopped_ = true;
    stop_string_ = found->text;
    held_.resize(held_.size() - found->text.size());
    return std::exchange(held_, {});
  }
  size_t possible = 0;
  for (const Automaton& automaton : automata_) possible = std::max(possible, automaton.matched);
  std::string shown = held_.substr(0, held_.size() - possible);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::Finish() {
  for (Automaton& automaton : automata_) automaton.matched = 0;
  return std::exchange(held_, {});
}

}  // namespace sluice
