#include "tools/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "formats/mapped_file.h"
#include "tools/interrupt.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxInputBytes = uint64_t{1} << 30;

std::atomic<bool> reader_is_gone = false;

Status StdoutError(const char* what) {
  if (errno == EPIPE) reader_is_gone = true;
  return Status(ErrorCode::kIo, fmt::format("{} standard output: {}", what, std::strerror(errno)));
}

}  // namespace

void PrepareStandardStreams() {
  std::signal(SIGPIPE, SIG_IGN);
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // Opened for the wrong direction: reading or writing it fails, as with a closed descriptor.
    if (fcntl(fd, F_GETFD) < 0) {
      [[maybe_unused]] int taken =
          open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);  // the lowest free one: fd
    }
  }
}

Status WriteStdout(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return StdoutError("write to");
    text.remove_prefix(static_cast<size_t>(written));
  }
  return Status();
}

bool StdoutReaderIsGone() { return reader_is_gone; }

Status CloseStdout() {
  // Network file systems report a full disk only here.
  if (close(STDOUT_FILENO) != 0 && errno != EINTR && errno != EBADF) return StdoutError("close");
  return Status();
}

void PrintLine(std::string_view line) {
  std::string text(line);
  text += '\n';
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(STDERR_FILENO, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return;
    done += static_cast<size_t>(written);
  }
}

bool StderrIsTerminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) && term != nullptr && std::strcmp(term, "dumb") != 0;
}

bool StdinIsTerminal() { return isatty(STDIN_FILENO); }
bool StdoutIsTerminal() { return isatty(STDOUT_FILENO); }

std::string OnOneLine(std::string_view text) {
  std::string line(text);
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return line;
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  const char* units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.995 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : 1, units[unit]);
}

std::string FormatDuration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e8)) return "?";
  const int64_t whole = std::llround(seconds);
  const int64_t hours = whole / 3600, minutes = whole / 60 % 60, rest = whole % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return fmt::format("{}:{:02}", minutes, rest);
}

std::string Printable(std::string_view text) {
  std::string shown;
  for (unsigned char c : text) {
    if (c < 0x20 || c == 0x7f) {
      shown += fmt::format("\\x{:02x}", c);
    } else {
      shown += static_cast<char>(c);
    }
  }
  return shown;
}

Result<std::string> ReadInputFile(const std::string& path) {
  if (path == "-") return ReadStdin();
  return ReadWholeFile(path, kMaxInputBytes);
}

Result<std::string> ReadStdin() {
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (;;) {
    if (!WaitForInput(STDIN_FILENO)) return InterruptedStatus();
    const ssize_t size = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) {
      return Status(ErrorCode::kIo, fmt::format("read standard input: {}", std::strerror(errno)));
    }
    if (size == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(size));
    if (text.size() > kMaxInputBytes) {
      return Status(ErrorCode::kLimitExceeded,
                    "standard input is longer than " + FormatBytes(kMaxInputBytes));
    }
  }
}

}  // namespace sluice
