// How far a long operation is: a bar on a terminal, a line every ten seconds elsewhere.
#ifndef SLUICE_TOOLS_PROGRESS_H_
#define SLUICE_TOOLS_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice {

class Progress {
 public:
  enum class Unit : uint8_t { kBytes, kCount };

  // `quiet` shows nothing at all.
  Progress(std::string label, Unit unit, bool quiet);
  // Takes the bar away.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // One call at a time, from any thread; cheap. `detail` stands at the end of the line.
  void Update(uint64_t done, uint64_t total, std::string_view detail = {});
  // Before other text goes to the terminal.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string Line(double elapsed_s, uint64_t done, uint64_t total, std::string_view detail) const;
  void Draw(double elapsed_s, uint64_t done, uint64_t total, std::string_view detail);

  std::string label_;
  Unit unit_;
  bool quiet_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point start_;
  Clock::time_point next_;
};

}  // namespace sluice

#endif  // SLUICE_TOOLS_PROGRESS_H_
