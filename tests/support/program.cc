#include "tests/support/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

extern char** environ;

namespace sluice {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr auto kTimeout = std::chrono::minutes(2);

struct Pipe {
  int read_end = -1;
  int write_end = -1;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) == 0) read_end = ends[0], write_end = ends[1];
  }
  ~Pipe() {
    CloseRead();
    CloseWrite();
  }
  void CloseRead() { Close(&read_end); }
  void CloseWrite() { Close(&write_end); }
  static void Close(int* fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
};

std::vector<std::string> EnvironmentFor(const ProgramOptions& options) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (std::strncmp(*entry, "SLUICE_", 7) != 0) environment.push_back(*entry);
  }
  for (const auto& [name, value] : options.environment) environment.push_back(name + "=" + value);
  return environment;
}

std::vector<char*> Pointers(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  for (std::string& text : *strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// The rest of a byte stream, or a part of it. False at its end.
bool ReadSome(int fd, std::string* text, size_t limit) {
  std::array<char, 65536> buffer;
  const ssize_t size = read(fd, buffer.data(), std::min(limit, buffer.size()));
  if (size > 0) text->append(buffer.data(), static_cast<size_t>(size));
  return size > 0;
}

void Exchange(pid_t child, const ProgramOptions& options, Pipe* in, Pipe* out, Pipe* err,
              ProgramResult* result) {
  size_t sent = 0;
  const auto deadline = Clock::now() + kTimeout;
  if (out->read_end >= 0 && !options.stdout_path.empty()) out->CloseRead();
  while (out->read_end >= 0 || err->read_end >= 0) {
    if (sent == options.stdin_text.size() && !options.keep_stdin_open) in->CloseWrite();
    pollfd fds[3] = {{out->read_end, POLLIN, 0},
                     {err->read_end, POLLIN, 0},
                     {sent < options.stdin_text.size() ? in->write_end : -1, POLLOUT, 0}};
    const int ready = poll(fds, 3, 1000);
    if (Clock::now() > deadline) kill(child, SIGKILL);
    if (ready <= 0) continue;
    if (fds[0].revents != 0) {
      const bool first = result->out.empty();
      // One byte at first, so that what the callback does comes before the rest is read.
      const bool more = ReadSome(out->read_end, &result->out, first ? 1 : SIZE_MAX);
      if (more && first && options.on_first_output) options.on_first_output(child);
      if (!more || options.stop_reading) out->CloseRead();
    }
    if (fds[1].revents != 0) {
      const bool first = result->err.empty();
      const bool more = ReadSome(err->read_end, &result->err, SIZE_MAX);
      if (more && first && options.on_first_message) options.on_first_message(child);
      if (!more) err->CloseRead();
    }
    if (fds[2].revents != 0) {
      const ssize_t size =
          write(in->write_end, options.stdin_text.data() + sent, options.stdin_text.size() - sent);
      sent = size > 0 ? sent + static_cast<size_t>(size) : options.stdin_text.size();
    }
  }
}

[[noreturn]] void BecomeSluice(const std::vector<char*>& arguments,
                               const std::vector<char*>& environment, const ProgramOptions& options,
                               const Pipe& in, const Pipe& out, const Pipe& err) {
  signal(SIGPIPE, SIG_DFL);
  dup2(in.read_end, STDIN_FILENO);
  dup2(err.write_end, STDERR_FILENO);
  if (options.close_stdout) {
    close(STDOUT_FILENO);
  } else if (options.stdout_path.empty()) {
    dup2(out.write_end, STDOUT_FILENO);
  } else {
    const int fd = open(options.stdout_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(fd, STDOUT_FILENO);
  }
  execve(SLUICE_BINARY, arguments.data(), environment.data());
  _exit(126);
}

std::string Converted(const std::string& source, const std::string& output) {
  const ProgramResult result = RunSluice({"convert", source, "-o", output, "--quant", "keep"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return output;
}

ScratchDirectory& SharedScratch() {
  static ScratchDirectory scratch;
  return scratch;
}

}  // namespace

ProgramResult RunSluice(const std::vector<std::string>& arguments, const ProgramOptions& options) {
  signal(SIGPIPE, SIG_IGN);
  std::vector<std::string> words = {"sluice"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = EnvironmentFor(options);
  const std::vector<char*> argv = Pointers(&words), envp = Pointers(&variables);
  Pipe in, out, err;
  const pid_t child = fork();
  if (child == 0) BecomeSluice(argv, envp, options, in, out, err);
  in.CloseRead();
  out.CloseWrite();
  err.CloseWrite();
  ProgramResult result;
  Exchange(child, options, &in, &out, &err, &result);
  in.CloseWrite();
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

void ExpectFailure(const ProgramResult& result, int exit_code, const std::string& code_name) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_NE(result.err.find("sluice: " + code_name + ": "), std::string::npos) << result.err;
}

void WriteTestFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string ReadTestFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string GoldenCheckpoint(const std::string& name) {
  return std::string(SLUICE_TEST_DATA_DIR) + "/golden/" + name;
}

const std::string& GoldenModel() {
  static const std::string path =
      Converted(GoldenCheckpoint("gqa"), SharedScratch() / "gqa.sluice");
  return path;
}

const std::string& LongContextModel() {
  static const std::string path = [] {
    const std::string directory = SharedScratch() / "long";
    fs::copy(GoldenCheckpoint("gqa"), directory);
    std::string config = ReadTestFile(directory + "/config.json");
    const std::string length = "\"max_position_embeddings\": 128";
    const size_t at = config.find(length);
    EXPECT_NE(at, std::string::npos);
    config.replace(at, length.size(), "\"max_position_embeddings\": 100000");
    WriteTestFile(directory + "/config.json", config);
    return Converted(directory, SharedScratch() / "long.sluice");
  }();
  return path;
}

}  // namespace sluice
