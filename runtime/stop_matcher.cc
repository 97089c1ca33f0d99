#include "runtime/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace sluice {

StopMatcher::StopMatcher(std::vector<std::string> stop_strings)
    : stop_strings_(std::move(stop_strings)) {
  std::erase(stop_strings_, "");
  std::sort(stop_strings_.begin(), stop_strings_.end(),
            [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
}

std::string StopMatcher::Append(std::string_view text) {
  std::string shown;
  for (char c : text) {
    if (stopped_) return shown;
    held_ += c;
    for (const std::string& stop : stop_strings_) {
      if (held_.ends_with(stop)) {
        shown.append(held_, 0, held_.size() - stop.size());
        held_.clear();
        stopped_ = true;
        stop_string_ = stop;
        return shown;
      }
    }
    const size_t certain = held_.size() - PossibleBeginning();
    shown.append(held_, 0, certain);
    held_.erase(0, certain);
  }
  return shown;
}

size_t StopMatcher::PossibleBeginning() const {
  for (size_t length = held_.size(); length > 0; --length) {
    const std::string_view end = std::string_view(held_).substr(held_.size() - length);
    for (const std::string& stop : stop_strings_) {
      if (stop.starts_with(end)) return length;
    }
  }
  return 0;
}

std::string StopMatcher::Finish() { return std::exchange(held_, std::string()); }

}  // namespace sluice
