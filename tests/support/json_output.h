// What the program prints and what a golden holds, as JSON.
#ifndef SLUICE_TESTS_SUPPORT_JSON_OUTPUT_H_
#define SLUICE_TESTS_SUPPORT_JSON_OUTPUT_H_

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/program.h"

namespace sluice {

// The standard output of a run that must have succeeded.
inline nlohmann::json Parsed(const ProgramResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  nlohmann::json json = nlohmann::json::parse(result.out, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << result.out;
  return json;
}

// Greedy completions of tests/golden/NAME by transformers.
inline nlohmann::json Golden(const std::string& name) {
  return nlohmann::json::parse(ReadTestFile(GoldenCheckpoint(name) + "/expected_greedy.json"));
}

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_JSON_OUTPUT_H_
