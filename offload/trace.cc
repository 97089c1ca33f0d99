#include "offload/trace.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace sluice {
namespace {

const char* TrackName(Trace::Track track) {
  switch (track) {
    case Trace::Track::kCompute:
      return "compute";
    case Trace::Track::kWait:
      return "wait";
    case Trace::Track::kDrive:
      return "drive";
  }
  return "";
}

// Names come from a model's file.
std::string JsonText(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      json += fmt::format("\\u{:04x}", byte);
    } else {
      json += c;
    }
  }
  return json + "\"";
}

}  // namespace

void Trace::Add(Track track, std::string name, Clock::time_point begin, Clock::time_point end,
                uint64_t size_bytes) {
  const auto microseconds = [this](Clock::time_point time) {
    return std::chrono::duration_cast<std::chrono::microseconds>(time - start_).count();
  };
  const std::lock_guard lock(mutex_);
  if (events_.size() == kMaxEvents) {
    ++dropped_;
    return;
  }
  events_.push_back({track, std::move(name), microseconds(begin), microseconds(end), size_bytes});
}

Status Trace::Write(const std::string& path) const {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr)
    return Status(ErrorCode::kIo, fmt::format("{}: {}", path, std::strerror(errno)));
  const std::lock_guard lock(mutex_);
  bool written = std::fputs("{\"traceEvents\":[\n", file) >= 0;
  for (const Track track : {Track::kCompute, Track::kWait, Track::kDrive}) {
    const std::string line = fmt::format(
        "{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_name\",\"args\":{{\"name\":\"{}\"}}}"
        "},\n",
        static_cast<int>(track), TrackName(track));
    written = written && std::fputs(line.c_str(), file) >= 0;
  }
  for (const Event& event : events_) {
    const std::string line = fmt::format(
        "{{\"ph\":\"X\",\"pid\":1,\"tid\":{},\"cat\":\"{}\",\"name\":{},\"ts\":{},\"dur\":{},"
        "\"args\":{{\"bytes\":{}}}}},\n",
        static_cast<int>(event.track), TrackName(event.track), JsonText(event.name), event.begin_us,
        event.end_us - event.begin_us, event.size_bytes);
    written = written && std::fputs(line.c_str(), file) >= 0;
  }
  const std::string end = fmt::format(
      "{{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{{\"name\":\"sluice\",\"dropped_"
      "events\":{}}}}}\n]}}\n",
      dropped_);
  written = written && std::fputs(end.c_str(), file) >= 0;
  // A full disk shows at the latest here.
  if (std::fclose(file) != 0 || !written) {
    return Status(ErrorCode::kIo, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return Status();
}

}  // namespace sluice
