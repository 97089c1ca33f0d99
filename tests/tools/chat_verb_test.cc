// `sluice chat`: on a terminal (line editing, history, Ctrl-C) and in a pipe.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <string>
#include <vector>

#include "tests/support/json_output.h"
#include "tests/support/program.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

constexpr char kCtrlC[] = "\x03";
constexpr char kCtrlD[] = "\x04";
constexpr char kUp[] = "\x1b[A";

// `sluice` on a terminal of its own.
class Terminal {
 public:
  Terminal(std::vector<std::string> arguments, const std::string& cache) {
    arguments.insert(arguments.begin(), "sluice");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    winsize size = {40, 200, 0, 0};
    child_ = forkpty(&terminal_, nullptr, nullptr, &size);
    if (child_ == 0) {
      setenv("SLUICE_CACHE", cache.c_str(), 1);
      setenv("TERM", "xterm", 1);
      execv(SLUICE_BINARY, argv.data());
      _exit(126);
    }
  }
  ~Terminal() {
    if (!waited_) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    close(terminal_);
  }

  void Type(const std::string& text) {
    ASSERT_EQ(write(terminal_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  // Reads until `text` comes; what came before it is forgotten. False after a minute, or at the
  // end.
  bool WaitFor(const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    for (;;) {
      const size_t at = shown_.find(text);
      if (at != std::string::npos) {
        shown_.erase(0, at + text.size());
        return true;
      }
      pollfd fd = {terminal_, POLLIN, 0};
      if (std::chrono::steady_clock::now() > deadline) return false;
      if (poll(&fd, 1, 1000) <= 0) continue;
      std::array<char, 4096> buffer;
      const ssize_t size = read(terminal_, buffer.data(), buffer.size());
      if (size <= 0) return false;  // EIO: the program has left
      shown_.append(buffer.data(), static_cast<size_t>(size));
    }
  }

  int ExitCode() {
    WaitFor("\x01 never printed");
    int status = 0;
    waitpid(child_, &status, 0);
    waited_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  const std::string& shown() const { return shown_; }

 private:
  int terminal_ = -1;
  pid_t child_ = -1;
  bool waited_ = false;
  std::string shown_;
};

TEST(ChatTerminal, AnswersEditsAndRemembers) {
  const ScratchDirectory scratch;
  {
    Terminal chat({"chat", GoldenModel(), "-n", "4", "--seed", "1"}, scratch.path());
    ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
    chat.Type("helXo\x7f\x7flo\r");  // the backspace is the terminal's
    ASSERT_TRUE(chat.WaitFor("tokens/s; context ")) << chat.shown();
    ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
    chat.Type(kUp);
    ASSERT_TRUE(chat.WaitFor("hello")) << chat.shown();
    chat.Type("\r");
    ASSERT_TRUE(chat.WaitFor("cached")) << chat.shown();
    ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
    chat.Type("/nonsense\r");
    ASSERT_TRUE(chat.WaitFor("/nonsense is no command")) << chat.shown();
    ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
    chat.Type("\xc3\xa4\r");  // one character of two bytes
    ASSERT_TRUE(chat.WaitFor("\xc3\xa4")) << chat.shown();
    ASSERT_TRUE(chat.WaitFor("tokens/s; context ")) << chat.shown();
    ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
    chat.Type("/bye\r");
    EXPECT_EQ(chat.ExitCode(), 0);
  }
  // The next conversation has the history of this one.
  Terminal chat({"chat", GoldenModel(), "-n", "4"}, scratch.path());
  ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
  chat.Type(std::string(kUp) + kUp + kUp);
  ASSERT_TRUE(chat.WaitFor("/nonsense")) << chat.shown();
  chat.Type("\x15");  // the line is cleared
  chat.Type(kCtrlD);
  EXPECT_EQ(chat.ExitCode(), 0);
}

TEST(ChatTerminal, CtrlCStopsAnAnswerAndKeepsIt) {
  const ScratchDirectory scratch;
  Terminal chat({"chat", LongContextModel(), "--ignore-eos", "--ctx", "100000", "--seed", "1"},
                scratch.path());
  ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
  chat.Type("hello\r");
  ASSERT_TRUE(chat.WaitFor("hello\r\n")) << chat.shown();
  usleep(300'000);
  chat.Type(kCtrlC);
  ASSERT_TRUE(chat.WaitFor("[stopped]")) << chat.shown();
  ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
  chat.Type("/save " + scratch / "chat.json" + "\r");
  ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
  EXPECT_THAT(ReadTestFile(scratch / "chat.json"), HasSubstr("\"role\": \"assistant\""));
  chat.Type(kCtrlC);
  ASSERT_TRUE(chat.WaitFor("leaves]")) << chat.shown();
  ASSERT_TRUE(chat.WaitFor("> ")) << chat.shown();
  chat.Type(kCtrlC);
  EXPECT_EQ(chat.ExitCode(), 130);
}

TEST(Chat, PipedConversation) {
  ProgramOptions options;
  options.stdin_text = "Hello\n\"\"\"two\nlines\"\"\"\n/stats\n/undo\n/bye\nnever read\n";
  const ProgramResult result =
      RunSluice({"chat", GoldenModel(), "-n", "4", "--temp", "0"}, options);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("messages of yours"));
  EXPECT_THAT(result.err, HasSubstr("cached"));
  EXPECT_FALSE(result.out.empty());
}

TEST(Chat, SaveAndLoad) {
  const ScratchDirectory scratch;
  ProgramOptions options;
  options.stdin_text = "Hello\n/save " + scratch.path() + "/chat.json\n/clear\n/load " +
                       scratch.path() + "/chat.json\n/regen\n";
  const ProgramResult result =
      RunSluice({"chat", GoldenModel(), "-n", "4", "--temp", "0", "--system", "Be kind."}, options);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(ReadTestFile(scratch / "chat.json"));
  ASSERT_EQ(json["messages"].size(), 3u);
  EXPECT_EQ(json["messages"][0]["content"], "Be kind.");
  EXPECT_EQ(json["messages"][1]["content"], "Hello");
  // Greedy: the second answer to the same messages is the first one.
  const std::string answer = json["messages"][2]["content"].get<std::string>() + "\n";
  EXPECT_EQ(result.out, answer + answer);
}

TEST(Chat, FullContextIsSaidAndFails) {
  ProgramOptions options;
  for (int i = 0; i < 30; ++i) options.stdin_text += "The tide turns now, and now again\n";
  const ProgramResult result =
      RunSluice({"chat", GoldenModel(), "--ignore-eos", "-n", "20"}, options);
  ExpectFailure(result, 1, "limit exceeded");
  EXPECT_THAT(result.err, HasSubstr("the context is full"));
}

TEST(Chat, UnknownCommandFailsWhereNobodyCanReadIt) {
  ProgramOptions options;
  options.stdin_text = "/fly\n";
  ExpectFailure(RunSluice({"chat", GoldenModel()}, options), 2, "invalid argument");
}

}  // namespace
}  // namespace sluice
