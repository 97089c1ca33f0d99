#include "formats/quote.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Quoted, KeepsPrintableNames) { EXPECT_EQ(Quoted("blk.0.attn_q"), "'blk.0.attn_q'"); }

TEST(Quoted, EscapesWhatCouldForgeALine) {
  EXPECT_EQ(Quoted(std::string_view("a\nb\0\x7f\xff", 6)), "'a\\x0ab\\x00\\x7f\\xff'");
}

TEST(Quoted, CutsLongNames) {
  EXPECT_EQ(Quoted(std::string(120, 'n')), "'" + std::string(120, 'n') + "'");
  EXPECT_EQ(Quoted(std::string(100'000, 'n')), "'" + std::string(120, 'n') + "...'");
}

}  // namespace
}  // namespace sluice
