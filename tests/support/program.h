// Runs the program `sluice` as a user would: arguments, environment, streams, signals.
#ifndef SLUICE_TESTS_SUPPORT_PROGRAM_H_
#define SLUICE_TESTS_SUPPORT_PROGRAM_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/scratch_directory.h"

namespace sluice {

struct ProgramResult {
  int exit_code = -1;  // 128 + the signal's number when a signal ended it
  std::string out;
  std::string err;
};

struct ProgramOptions {
  std::string stdin_text;
  // On top of what the test itself has, without its SLUICE_ variables.
  std::vector<std::pair<std::string, std::string>> environment;
  std::string stdout_path;    // "": a pipe that is read to its end
  bool close_stdout = false;  // no descriptor 1 at all
  bool keep_stdin_open = false;
  // Called with the process when its first byte of stdout, or of stderr, was read.
  std::function<void(pid_t)> on_first_output;
  std::function<void(pid_t)> on_first_message;
  // Reads nothing of stdout and closes it after the first byte.
  bool stop_reading = false;
};

// Waits for the end; at most two minutes, then the process is killed and exit_code is 137.
ProgramResult RunSluice(const std::vector<std::string>& arguments,
                        const ProgramOptions& options = {});

// That exit code, and "sluice: CODE: " on stderr, as in "does not fit".
void ExpectFailure(const ProgramResult& result, int exit_code, const std::string& code_name);

void WriteTestFile(const std::string& path, const std::string& bytes);
std::string ReadTestFile(const std::string& path);

// tests/golden/NAME, a checkpoint in the Hugging Face form.
std::string GoldenCheckpoint(const std::string& name);
// The checkpoint `gqa` as a .sluice file with f32 or bf16 matrices (--quant keep), made once by the
// program itself.
const std::string& GoldenModel();
// The same with a context of 100,000 tokens: for what takes a while.
const std::string& LongContextModel();

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_PROGRAM_H_
