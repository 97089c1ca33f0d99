#include "tests/support/bad_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/program.h"

namespace sluice {

void ExpectOneLineOfError(const std::vector<std::string>& arguments, const std::string& file,
                          const BadFile& bad) {
  const ProgramResult result = RunSluice(arguments);
  EXPECT_EQ(result.exit_code, bad.exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_THAT(result.err, ::testing::StartsWith("sluice: " + bad.code + ": "));
  EXPECT_THAT(result.err, ::testing::HasSubstr(file));
  EXPECT_THAT(result.err, ::testing::HasSubstr(bad.message));
}

}  // namespace sluice
