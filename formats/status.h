// Failure is a value. Every function of the library that can fail on data, files or memory returns
// Status or Result<T>; nothing throws across a public header, prints, exits or aborts on data.
#ifndef SLUICE_FORMATS_STATUS_H_
#define SLUICE_FORMATS_STATUS_H_

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace sluice {

// What went wrong, by what the caller can do about it. Programs map these to exit codes
// (tools/exit_code.h): kInvalidArgument 2, kUnsupported and kDoesNotFit 3, kCancelled 130,
// others 1.
enum class ErrorCode {
  kOk = 0,
  kInvalidArgument,  // the caller's words are off: an option, a request field
  kNotFound,         // no such file, tensor or key
  kIo,               // the operating system failed a call; the message has path, offset and errno
  kTruncated,        // a file ends before what it declares
  kCorrupt,          // a checksum or a consistency rule is violated
  kUnsupported,      // understood, but this version cannot do it (architecture, type, feature)
  kDoesNotFit,       // refused: the budgets given do not allow it
  kOutOfMemory,      // an allocation within the budget failed
  kLimitExceeded,    // a bound on work, output or nesting was reached
  kCancelled,        // the caller asked for the end
  kInternal,         // a bug in sluice
};

// The name of a code as programs print it, for example "corrupt".
const char* ErrorCodeName(ErrorCode code);

// An error code with one line of context (path, offset, tensor, errno), or success.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with "context: " in front of its message.
  Status WithContext(const std::string& context) const {
    return ok() ? *this : Status(code_, context + ": " + message_);
  }

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
};

// A value or the Status that says why there is none. REQUIRES: ok() before the value is read.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}        // NOLINT: implicit
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT: implicit
    assert(!std::get<1>(state_).ok());
  }

  bool ok() const { return state_.index() == 0; }
  Status status() const { return ok() ? Status() : std::get<1>(state_); }

  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace sluice

#endif  // SLUICE_FORMATS_STATUS_H_
