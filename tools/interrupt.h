// Ctrl-C: the first one asks what is running to end, the second one leaves at once.
#ifndef SLUICE_TOOLS_INTERRUPT_H_
#define SLUICE_TOOLS_INTERRUPT_H_

#include "sluice/engine.h"

namespace sluice {

// SIGINT and SIGTERM from now on.
void InstallInterruptHandler();

// Whether there was one since the start or the last ClearInterrupt. Any thread.
bool Interrupted();
void ClearInterrupt();
Status InterruptedStatus();

// Waits until `fd` has something to read, or its end. False when an interrupt came instead, also
// one that came before the call, or that another thread took.
bool WaitForInput(int fd);

// While it lives, an interrupt cancels what the engine runs. One at a time.
class CancelOnInterrupt {
 public:
  explicit CancelOnInterrupt(Engine* engine);
  ~CancelOnInterrupt();
  CancelOnInterrupt(const CancelOnInterrupt&) = delete;
  CancelOnInterrupt& operator=(const CancelOnInterrupt&) = delete;
};

}  // namespace sluice

#endif  // SLUICE_TOOLS_INTERRUPT_H_
