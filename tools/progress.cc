#include "tools/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "tools/output.h"

namespace sluice {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kPlainLine = std::chrono::seconds(10);
constexpr size_t kBarCells = 24;

size_t TerminalColumns() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

void WriteRaw(std::string_view text) {
  // A terminal that cannot be written to misses a bar, no more.
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

// At most `columns` characters (not bytes) of UTF-8.
std::string Fitted(std::string_view text, size_t columns) {
  size_t size = 0, shown = 0;
  while (size < text.size()) {
    const bool starts_character = (static_cast<unsigned char>(text[size]) & 0xc0) != 0x80;
    if (starts_character && shown++ == columns) break;
    ++size;
  }
  return std::string(text.substr(0, size));
}

}  // namespace

Progress::Progress(std::string label, Unit unit, bool quiet)
    : label_(std::move(label)),
      unit_(unit),
      quiet_(quiet),
      terminal_(StderrIsTerminal()),
      start_(Clock::now()),
      // A short operation shows nothing.
      next_(start_ + (terminal_ ? Clock::duration(kRedraw) : Clock::duration(kPlainLine))) {}

Progress::~Progress() { Clear(); }

void Progress::Clear() {
  if (drawn_) WriteRaw("\r\x1b[K");
  drawn_ = false;
}

void Progress::Update(uint64_t done, uint64_t total, std::string_view detail) {
  if (quiet_) return;
  const Clock::time_point now = Clock::now();
  if (now < next_) return;
  next_ = now + (terminal_ ? Clock::duration(kRedraw) : Clock::duration(kPlainLine));
  Draw(std::chrono::duration<double>(now - start_).count(), done, total, detail);
}

std::string Progress::Line(double elapsed_s, uint64_t done, uint64_t total,
                           std::string_view detail) const {
  const double rate = elapsed_s > 0 ? static_cast<double>(done) / elapsed_s : 0;
  std::string line = unit_ == Unit::kBytes
                         ? fmt::format("{} of {}, {}/s", FormatBytes(done), FormatBytes(total),
                                       FormatBytes(static_cast<uint64_t>(rate)))
                         : fmt::format("{} of {}, {:.2f}/s", done, total, rate);
  if (rate > 0 && total >= done) {
    line += fmt::format(", {} left", FormatDuration(static_cast<double>(total - done) / rate));
  }
  if (!detail.empty()) line += ", " + Printable(detail);
  return line;
}

void Progress::Draw(double elapsed_s, uint64_t done, uint64_t total, std::string_view detail) {
  const double share =
      total > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 0;
  const std::string line = Line(elapsed_s, done, total, detail);
  if (!terminal_) {
    PrintLine(fmt::format("{}: {:.0f} %, {}", label_, share * 100, line));
    return;
  }
  const size_t filled = static_cast<size_t>(share * kBarCells);
  std::string bar(kBarCells, '.');
  std::fill_n(bar.begin(), filled, '#');
  const std::string text = fmt::format("{} [{}] {:3.0f} %  {}", label_, bar, share * 100, line);
  WriteRaw(fmt::format("\r{}\x1b[K", Fitted(text, TerminalColumns() - 1)));
  drawn_ = true;
}

}  // namespace sluice
