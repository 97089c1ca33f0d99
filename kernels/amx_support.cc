#include "kernels/amx_support.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>

#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu_features.h"

namespace sluice {
namespace {

constexpr int kTimeLimitMs = 10'000;  // a trial takes microseconds, but the machine may be busy
constexpr char kRight = 'r';
constexpr char kWrong = 'w';
constexpr char kRefused = 'p';

// Linux, Documentation/arch/x86/xstate.rst. The permission belongs to the process, with the threads
// that it has already, and to children that it gets later. The kernel refuses it too where a thread
// has an alternate signal stack without room for the registers.
bool RequestTilePermission() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// The child: only what may be called between fork and exit in a process with threads. It asks for
// the permission itself, because a sandbox may answer the question with a signal.
[[noreturn]] void RunTrial(const AmxProbe& probe, int answer) {
  // The program's handlers and core files are not for this.
  for (int signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGABRT, SIGSYS, SIGALRM}) {
    struct sigaction action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  alarm(static_cast<unsigned>(probe.time_limit_ms / 1000 + 1));  // should the parent be gone
  const char result = !probe.request_permission() ? kRefused : probe.trial() ? kRight : kWrong;
  const ssize_t written = write(answer, &result, 1);
  _exit(written == 1 ? 0 : 1);
}

// The answer of the child, however often the wait is interrupted.
AmxState AwaitAnswer(int answer, int time_limit_ms) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::milliseconds(time_limit_ms);
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    pollfd descriptor = {answer, POLLIN, 0};
    const int ready = poll(&descriptor, 1, left.count() < 0 ? 0 : static_cast<int>(left.count()));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return AmxState::kTimedOut;
    char result = 0;
    const ssize_t got = read(answer, &result, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got != 1) return AmxState::kCrashed;  // the end of the pipe: nobody is left to answer
    if (result == kRefused) return AmxState::kPermissionRefused;
    return result == kRight ? AmxState::kUsable : AmxState::kWrongResult;
  }
}

AmxState TryInChild(const AmxProbe& probe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return AmxState::kNotTried;
  const pid_t child = fork();
  if (child == 0) RunTrial(probe, ends[1]);
  close(ends[1]);
  const AmxState state =
      child < 0 ? AmxState::kNotTried : AwaitAnswer(ends[0], probe.time_limit_ms);
  close(ends[0]);
  if (child > 0) {
    kill(child, SIGKILL);
    // ECHILD where the program ignores the ends of its children.
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  return state;
}

}  // namespace

const char* Describe(AmxState state) {
  switch (state) {
    case AmxState::kUsable:
      return "usable";
    case AmxState::kAbsent:
      return "the processor does not have it";
    case AmxState::kNotEnabled:
      return "the operating system does not save its registers";
    case AmxState::kPermissionRefused:
      return "the kernel refuses the permission for its registers";
    case AmxState::kCrashed:
      return "a trial of its instructions crashed";
    case AmxState::kTimedOut:
      return "a trial of its instructions did not end";
    case AmxState::kWrongResult:
      return "a trial of its instructions gave a wrong result";
    case AmxState::kNotTried:
      return "no process could be started to try its instructions";
  }
  return "unknown";
}

AmxState ProbeAmx(const AmxProbe& probe) {
  if (!probe.advertised()) return AmxState::kAbsent;
  if (!probe.enabled()) return AmxState::kNotEnabled;
  const AmxState state = TryInChild(probe);
  if (state != AmxState::kUsable) return state;
  return probe.request_permission() ? state : AmxState::kPermissionRefused;
}

AmxState AmxOfThisMachine() {
  static const AmxState state = ProbeAmx({.advertised = CpuHasAmx,
                                          .enabled = OsSavesAmx,
                                          .request_permission = RequestTilePermission,
                                          .trial = TryTiles,
                                          .time_limit_ms = kTimeLimitMs});
  return state;
}

}  // namespace sluice
