#include "tools/interrupt.h"

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
  errno = saved_errno;
}

}  // namespace

void InstallInterruptHandler() {
  g_has_terminal = tcgetattr(STDIN_FILENO, &g_terminal) == 0;
  struct sigaction action = {};
  action.sa_handler = HandleInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool Interrupted() { return g_interrupts.load() > 0; }
void ClearInterrupt() { g_interrupts.store(0); }
Status InterruptedStatus() { return Status(ErrorCode::kCancelled, "interrupted"); }

CancelOnInterrupt::CancelOnInterrupt(Engine* engine) { g_engine.store(engine); }
CancelOnInterrupt::~CancelOnInterrupt() { g_engine.store(nullptr); }

}  // namespace sluice
