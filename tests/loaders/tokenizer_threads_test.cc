// One tokenizer in several threads.
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "loaders/tokenizer/tokenizer.h"
#include "tests/support/program.h"

namespace sluice {
namespace {

TEST(TokenizerThreads, ManyEncodeAtOnce) {
  const std::string json = ReadTestFile(GoldenCheckpoint("gqa") + "/tokenizer.json");
  const Result<Tokenizer> tokenizer = Tokenizer::FromHuggingFace({json, {}, {}, {}, {}});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  std::string text;
  for (int i = 0; i < 100; ++i) text += "The tide turns now, and now again. ";
  const std::vector<int32_t> expected = *tokenizer->Encode(text, false, false);
  ASSERT_GT(expected.size(), 700u);
  std::vector<std::vector<int32_t>> results(4);
  std::vector<std::thread> threads;
  for (std::vector<int32_t>& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) result = *tokenizer->Encode(text, false, false);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<int32_t>& result : results) EXPECT_EQ(result, expected);
}

}  // namespace
}  // namespace sluice
