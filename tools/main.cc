// The program `sluice`: one verb per file, options declared once (options.h), exit codes of
// exit_code.h.
#include <exception>
#include <new>

#include "tools/cli.h"
#include "tools/exit_code.h"
#include "tools/interrupt.h"
#include "tools/output.h"

int main(int argc, char** argv) {
  sluice::PrepareStandardStreams();
  sluice::InstallInterruptHandler();
  try {
    sluice::Cli cli;
    sluice::AddAllVerbs(&cli);
    sluice::Status status = cli.Run(argc, argv);
    if (status.ok()) status = sluice::CloseStdout();
    return sluice::ReportStatus(status);
  } catch (const std::bad_alloc&) {
    return sluice::ReportStatus(sluice::Status(sluice::ErrorCode::kOutOfMemory, "out of memory"));
  } catch (const std::exception& error) {
    return sluice::ReportStatus(sluice::Status(sluice::ErrorCode::kInternal, error.what()));
  }
}
