#include "tools/exit_code.h"

#include "tools/output.h"

namespace sluice {

int ExitCodeOf(const Status& status) {
  switch (status.code()) {
    case ErrorCode::kOk:
      return kExitDone;
    case ErrorCode::kInvalidArgument:
      return kExitUsage;
    case ErrorCode::kUnsupported:
    case ErrorCode::kDoesNotFit:
      return kExitRefused;
    case ErrorCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailed;
  }
}

int ReportStatus(const Status& status) {
  if (!status.ok() && !StdoutReaderIsGone()) {
    PrintLine(std::string("sluice: ") + ErrorCodeName(status.code()) + ": " +
              OnOneLine(status.message()));
  }
  return ExitCodeOf(status);
}

}  // namespace sluice
