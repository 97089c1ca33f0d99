#include "tools/interrupt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "tools/exit_code.h"

namespace sluice {
namespace {

std::atomic<Engine*> g_engine = nullptr;
std::atomic<int> g_interrupts = 0;
static_assert(std::atomic<Engine*>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "the handler may use only these");

// A byte for each interrupt: what waits for input waits for these too.
int g_wake[2] = {-1, -1};

// As the terminal was at the start: line editing changes it.
termios g_terminal;
bool g_has_terminal = false;

extern "C" void HandleInterrupt(int) {
  const int saved_errno = errno;
  if (g_interrupts.fetch_add(1) >= 1) {
    if (g_has_terminal) tcsetattr(STDIN_FILENO, TCSANOW, &g_terminal);
    _exit(kExitInterrupted);
  }
  if (Engine* engine = g_engine.load()) engine->Cancel();
  [[maybe_unused]] const ssize_t written = write(g_wake[1], "x", 1);
  errno = saved_errno;
}

}  // namespace

void InstallInterruptHandler() {
  g_has_terminal = tcgetattr(STDIN_FILENO, &g_terminal) == 0;
  // Without the pipe an interrupt is seen when the next input comes.
  [[maybe_unused]] const int error = pipe2(g_wake, O_CLOEXEC | O_NONBLOCK);
  struct sigaction action = {};
  action.sa_handler = HandleInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool Interrupted() { return g_interrupts.load() > 0; }

void ClearInterrupt() {
  g_interrupts.store(0);
  char bytes[16];
  while (read(g_wake[0], bytes, sizeof bytes) > 0) {
  }
}

bool WaitForInput(int fd) {
  pollfd fds[2] = {{fd, POLLIN, 0}, {g_wake[0], POLLIN, 0}};
  while (!Interrupted() && poll(fds, 2, -1) < 0 && errno == EINTR) {
  }
  return !Interrupted();
}

Status InterruptedStatus() { return Status(ErrorCode::kCancelled, "interrupted"); }

CancelOnInterrupt::CancelOnInterrupt(Engine* engine) { g_engine.store(engine); }
CancelOnInterrupt::~CancelOnInterrupt() { g_engine.store(nullptr); }

}  // namespace sluice
