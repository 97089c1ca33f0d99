// Exit codes of the programs, and the one line that goes with each failure.
#ifndef SLUICE_TOOLS_EXIT_CODE_H_
#define SLUICE_TOOLS_EXIT_CODE_H_

#include "formats/status.h"

namespace sluice {

enum ExitCode : int {
  kExitDone = 0,
  kExitFailed = 1,         // I/O, memory, a corrupt file
  kExitUsage = 2,          // the command line or an environment variable is wrong
  kExitRefused = 3,        // does not fit, unsupported
  kExitInterrupted = 130,  // Ctrl-C
};

int ExitCodeOf(const Status& status);

// Prints "sluice: <code name>: <message>" on stderr, as one line whatever the message holds, and
// returns the exit code. Prints nothing for success.
int ReportStatus(const Status& status);

}  // namespace sluice

#endif  // SLUICE_TOOLS_EXIT_CODE_H_
