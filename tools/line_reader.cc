#include "tools/line_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <cwchar>
#include <utility>

#include "tools/interrupt.h"
#include "tools/output.h"

namespace sluice {
namespace {

constexpr int kHistoryLines = 1000;
constexpr size_t kMaxLineBytes = 64u << 20;

class PlainLineReader : public LineReader {
 public:
  Result<Event> Read(const std::string&, std::string* line) override {
    for (;;) {
      const size_t end = pending_.find('\n', searched_);
      if (end != std::string::npos) {
        *line = pending_.substr(0, end);
        pending_.erase(0, end + 1);
        searched_ = 0;
        return Event::kLine;
      }
      searched_ = pending_.size();
      if (pending_.size() > kMaxLineBytes) {
        return Status(ErrorCode::kLimitExceeded, "a line of standard input has no end");
      }
      if (!WaitForInput(STDIN_FILENO)) return Event::kInterrupt;
      std::array<char, 4096> buffer;
      const ssize_t size = read(STDIN_FILENO, buffer.data(), buffer.size());
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) {
        return Status(ErrorCode::kIo, std::string("read standard input: ") + std::strerror(errno));
      }
      if (size == 0) {
        if (pending_.empty()) return Event::kEnd;
        *line = std::exchange(pending_, "");
        searched_ = 0;
        return Event::kLine;
      }
      pending_.append(buffer.data(), static_cast<size_t>(size));
    }
  }

 private:
  std::string pending_;
  size_t searched_ = 0;
};

// libedit asks for wide characters in the locale's encoding; sluice speaks UTF-8 only.
void UseUtf8Locale() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

// Its own way to read would start again after a signal.
int ReadCharacter(EditLine*, wchar_t* character) {
  std::mbstate_t state = {};
  for (;;) {
    if (!WaitForInput(STDIN_FILENO)) return -1;
    char byte = 0;
    const ssize_t size = read(STDIN_FILENO, &byte, 1);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return static_cast<int>(size);
    const size_t used = std::mbrtowc(character, &byte, 1, &state);
    if (used == static_cast<size_t>(-2)) continue;  // more bytes of it to come
    if (used == static_cast<size_t>(-1)) *character = 0xfffd;
    return 1;
  }
}

class EditLineReader : public LineReader {
 public:
  explicit EditLineReader(const std::string& history_file) : history_file_(history_file) {
    UseUtf8Locale();
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistoryLines);
    history(history_, &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) {
      // Made here so that nobody else can read it.
      const int fd = open(history_file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
      if (fd >= 0) close(fd);
      history(history_, &event, H_LOAD, history_file_.c_str());
    }
    edit_ = el_init("sluice", stdin, stderr, stderr);
    if (edit_ == nullptr) return;
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_PROMPT, &EditLineReader::Prompt);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_HIST, history, history_);
    el_set(edit_, EL_GETCFN, ReadCharacter);
  }

  ~EditLineReader() override {
    if (edit_ != nullptr) el_end(edit_);
    history_end(history_);
  }

  bool ok() const { return edit_ != nullptr; }

  Result<Event> Read(const std::string& prompt, std::string* line) override {
    prompt_ = prompt;
    int size = 0;
    const char* text = el_gets(edit_, &size);
    if (Interrupted()) {
      PrintLine("");
      return Event::kInterrupt;
    }
    if (text == nullptr || size <= 0) return Event::kEnd;
    *line = std::string(text, static_cast<size_t>(size));
    Remember(*line);
    if (!line->empty() && line->back() == '\n') line->pop_back();
    return Event::kLine;
  }

 private:
  static const char* Prompt(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return static_cast<EditLineReader*>(self)->prompt_.c_str();
  }

  // After each line: a second Ctrl-C leaves without ceremony. A history that cannot be written
  // costs the history, not the conversation.
  void Remember(const std::string& line) {
    if (line.find_first_not_of(" \t\r\n") == std::string::npos) return;
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (!history_file_.empty()) history(history_, &event, H_SAVE, history_file_.c_str());
  }

  std::string history_file_;
  std::string prompt_;
  History* history_ = nullptr;
  EditLine* edit_ = nullptr;
};

}  // namespace

std::unique_ptr<LineReader> MakeLineReader(const std::string& history_file) {
  if (StdinIsTerminal() && StderrIsTerminal()) {
    auto reader = std::make_unique<EditLineReader>(history_file);
    if (reader->ok()) return reader;
  }
  return std::make_unique<PlainLineReader>();
}

}  // namespace sluice
