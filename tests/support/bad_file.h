// Bad files, given to the program as a user would: what INTERFACES.md promises of each.
#ifndef SLUICE_TESTS_SUPPORT_BAD_FILE_H_
#define SLUICE_TESTS_SUPPORT_BAD_FILE_H_

#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace sluice {

struct BadFile {
  std::string name;
  std::function<std::string()> bytes;
  int exit_code;
  std::string code;     // "corrupt"
  std::string message;  // a part of what is said: what is wrong, and where
};

inline void PrintTo(const BadFile& bad, std::ostream* out) { *out << bad.name; }

// Runs the program: it ends with the exit code, without a word on stdout, and with one line on
// stderr, "sluice: CODE: ...", that names `file` and what is wrong.
void ExpectOneLineOfError(const std::vector<std::string>& arguments, const std::string& file,
                          const BadFile& bad);

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_BAD_FILE_H_
