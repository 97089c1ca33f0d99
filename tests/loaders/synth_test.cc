// Random weights: what they are, and that they depend on nothing but shape, type and seed.
#include "loaders/synth.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "formats/sluice_file.h"
#include "formats/tile_layout.h"
#include "loaders/random_tiles.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> Contents(const SluiceFile& file) {
  std::vector<std::byte> bytes(file.source().size_bytes());
  EXPECT_TRUE(file.source().ReadAt(0, bytes).ok());
  return bytes;
}

std::vector<std::byte> Synthesized(const std::string& path, const ConvertOptions& options,
                                   uint64_t seed) {
  const Result<ConvertReport> report = SynthesizeModel("smollm2-135m", path, options, seed);
  if (!report.ok()) {
    ADD_FAILURE() << report.status().message();
    return {};
  }
  const Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(path);
  if (!file.ok()) {
    ADD_FAILURE() << file.status().message();
    return {};
  }
  EXPECT_EQ(report->file_bytes, (*file)->source().size_bytes());
  std::vector<std::byte> bytes = Contents(**file);
  for (PieceId id = 0; id < (*file)->pieces().size(); ++id) {
    const PieceEntry& piece = (*file)->pieces()[id];
    EXPECT_TRUE(
        (*file)
            ->VerifyPiece(id, std::span(bytes).subspan(piece.offset_bytes, piece.size_bytes))
            .ok());
  }
  return bytes;
}

TEST(Synth, TheSameBytesWhateverTheThreadsAndAnotherFileForAnotherSeed) {
  const ScratchDirectory scratch;
  ConvertOptions options;
  options.threads = 1;
  const std::vector<std::byte> one = Synthesized(scratch / "one.sluice", options, 5);
  options.threads = 7;
  const std::vector<std::byte> seven = Synthesized(scratch / "seven.sluice", options, 5);
  EXPECT_TRUE(one == seven);
  const std::vector<std::byte> other = Synthesized(scratch / "other.sluice", options, 6);
  EXPECT_EQ(one.size(), other.size());
  EXPECT_FALSE(one == other);
}

// tmpfs, overlay and others may refuse O_DIRECT, some of them only when it is used.
class NoDirectFiles : public FileSystem {
 public:
  explicit NoDirectFiles(bool at_open) : at_open_(at_open) {}
  int Open(const std::string& path, int flags) override {
    if ((flags & O_DIRECT) == 0) return FileSystem::Open(path, flags);
    if (at_open_) {
      errno = EINVAL;
      return -1;
    }
    direct_ = FileSystem::Open(path, flags & ~O_DIRECT);
    return direct_;
  }
  ssize_t Write(int fd, std::span<const std::byte> bytes, uint64_t offset_bytes) override {
    if (fd != direct_) return FileSystem::Write(fd, bytes, offset_bytes);
    ++refused;
    errno = EINVAL;
    return -1;
  }
  std::atomic<int> refused = 0;

 private:
  bool at_open_;
  int direct_ = -1;
};

TEST(Synth, TheSameBytesWithoutDirectWrites) {
  const ScratchDirectory scratch;
  const std::vector<std::byte> direct = Synthesized(scratch / "direct.sluice", {}, 1);
  NoDirectFiles at_open(true);
  NoDirectFiles at_write(false);
  ConvertOptions options;
  options.files = &at_open;
  EXPECT_TRUE(direct == Synthesized(scratch / "open.sluice", options, 1));
  options.files = &at_write;
  EXPECT_TRUE(direct == Synthesized(scratch / "write.sluice", options, 1));
  EXPECT_GT(at_write.refused, 0);
}

TEST(Synth, EndsWhenProgressSaysSoAndLeavesNothing) {
  const ScratchDirectory scratch;
  ConvertOptions options;
  int calls = 0;
  options.progress = [&](const ConvertProgress& progress) {
    EXPECT_LE(progress.done_bytes, progress.total_bytes);
    return ++calls < 3;
  };
  const Result<ConvertReport> report =
      SynthesizeModel("smollm2-135m", scratch / "none.sluice", options, 0);
  EXPECT_EQ(report.status().code(), ErrorCode::kCancelled);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(SluiceFile::Open(scratch / "none.sluice").status().code(), ErrorCode::kNotFound);
  EXPECT_EQ(SluiceFile::Open(scratch / "none.sluice.partial").status().code(),
            ErrorCode::kNotFound);
}

class RandomTilesOfType : public ::testing::TestWithParam<WeightType> {};

// 1,024 rows of 4,096: the mean of 2^22 values of variance 1/4096 has a deviation of 7.6e-6; the
// mean of the squares of n scales that vary by a quarter has one of 0.29 / sqrt(n), the larger part
// of what the variance has.
TEST_P(RandomTilesOfType, HaveMeanZeroAndTheVarianceThatKeepsActivations) {
  constexpr uint64_t kRows = 1024, kCols = 4096;
  const Result<TileLayout> layout = MakeTileLayout(GetParam(), kRows, kCols, kTileRows);
  ASSERT_TRUE(layout.ok());
  const Result<RandomTiles> random = RandomTiles::Make(*layout, 3);
  ASSERT_TRUE(random.ok());
  std::vector<std::byte> tile(layout->tile_bytes, std::byte{0xee});
  std::vector<float> row(kCols);
  std::set<std::vector<std::byte>> tiles;
  double sum = 0, squares = 0;
  for (uint64_t t = 0; t < layout->num_tiles; ++t) {
    random->Fill(t, tile.data());
    tiles.insert(tile);
    for (uint32_t r = 0; r < kTileRows; ++r) {
      DequantizeRow(*layout, tile.data(), r, row.data());
      double of_row = 0;
      for (const float value : row) {
        of_row += value;
        squares += double{value} * value;
        ASSERT_LT(std::abs(value), 4 / std::sqrt(double{kCols}));
      }
      // No row leans to one side: that would add up over the layers.
      EXPECT_LT(std::abs(of_row), 8);
      sum += of_row;
    }
  }
  constexpr double kCount = kRows * kCols;
  EXPECT_EQ(tiles.size(), layout->num_tiles);
  EXPECT_LT(std::abs(sum / kCount), 5 * 7.6e-6);
  const double scales = static_cast<double>(kRows * layout->groups_per_row());
  EXPECT_NEAR(squares / kCount * kCols, 1.0, 4 * (0.29 / std::sqrt(scales) + 0.001));
}

TEST_P(RandomTilesOfType, RoundTripThroughTheLayout) {
  const Result<TileLayout> layout = MakeTileLayout(GetParam(), 32, 192, kTileRows);
  ASSERT_TRUE(layout.ok());
  const Result<RandomTiles> random = RandomTiles::Make(*layout, 9);
  ASSERT_TRUE(random.ok());
  std::vector<std::byte> made(layout->tile_bytes, std::byte{0xee});
  random->Fill(1, made.data());
  std::vector<std::byte> packed(layout->tile_bytes);
  std::vector<uint32_t> values(layout->cols);
  std::vector<uint16_t> scales(layout->groups_per_row()), offsets(layout->groups_per_row());
  std::map<uint32_t, int> seen;
  for (uint32_t r = 0; r < kTileRows; ++r) {
    const RowCodes codes = {values.data(), scales.data(), offsets.data()};
    UnpackRow(*layout, made.data(), r, codes);
    PackRow(*layout, r, codes, packed.data());
    for (const uint32_t value : values) ++seen[value];
  }
  // Padding is zero, and nothing is left as it was.
  EXPECT_TRUE(made == packed);
  // 3,072 values; each of 16 or 256 integers is expected 192 or 12 times.
  const size_t expected = IntegerBits(GetParam().kind) == 4 ? 16 : 246;
  if (layout->type.quantized()) {
    EXPECT_GE(seen.size(), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, RandomTilesOfType,
    ::testing::Values(WeightType{WeightKind::kF32, WeightOffset::kNone, 0},
                      WeightType{WeightKind::kF16, WeightOffset::kNone, 0},
                      WeightType{WeightKind::kBF16, WeightOffset::kNone, 0},
                      WeightType{WeightKind::kInt8, WeightOffset::kNone, 0},
                      WeightType{WeightKind::kInt8, WeightOffset::kNone, 32},
                      WeightType{WeightKind::kInt8, WeightOffset::kZeroPoint, 64},
                      WeightType{WeightKind::kInt4, WeightOffset::kNone, 128},
                      WeightType{WeightKind::kInt4, WeightOffset::kZeroPoint, 128},
                      WeightType{WeightKind::kInt4, WeightOffset::kMinimum, 32}));

TEST(RandomTiles, RefusesWhatItCannotMake) {
  const auto refused = [](const WeightType& type, uint64_t rows, uint64_t cols) {
    const Result<TileLayout> layout = MakeTileLayout(type, rows, cols, kTileRows);
    EXPECT_TRUE(layout.ok());
    const Status status = RandomTiles::Make(*layout, 0).status();
    EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(status.message(), HasSubstr(WeightTypeName(type)));
  };
  refused({WeightKind::kQ4K, WeightOffset::kMinimum, 32}, 16, 256);
  refused({WeightKind::kInt5, WeightOffset::kNone, 32}, 16, 256);
  refused({WeightKind::kInt4, WeightOffset::kNone, 32}, 16, 33);
  refused({WeightKind::kInt4, WeightOffset::kNone, 32}, 17, 64);
}

}  // namespace
}  // namespace sluice
