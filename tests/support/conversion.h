// What tests of the converter share.
#ifndef SLUICE_TESTS_SUPPORT_CONVERSION_H_
#define SLUICE_TESTS_SUPPORT_CONVERSION_H_

#include <filesystem>
#include <set>
#include <string>

#include "loaders/convert.h"
#include "tests/support/program.h"
#include "tests/support/scratch_directory.h"

namespace sluice::testing {

inline Status Convert(const std::string& output, const ConvertOptions& options,
                      const std::string& source = GoldenCheckpoint("gqa")) {
  return ConvertCheckpoint(source, output, options).status();
}

inline std::set<std::string> FilesIn(const ScratchDirectory& scratch) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(scratch.path())) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_CONVERSION_H_
