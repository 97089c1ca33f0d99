// Both stores hand out the file's bytes, and nothing that is damaged.
#include "offload/weight_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "formats/sluice_writer.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// Everything in RAM.
Result<std::unique_ptr<WeightStore>> OpenResidentStore(std::shared_ptr<const SluiceFile> file,
                                                       int threads, const LoadProgress& progress) {
  Result<Placement> placement =
      PlaceGroups(PlacementGroups(*file), {.budget_bytes = uint64_t{1} << 40, .rules = {}});
  if (!placement.ok()) return placement.status();
  TieredOptions options;
  options.threads = threads;
  options.progress = progress;
  return OpenTieredStore(std::move(file), *placement, options);
}

class WeightStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SluiceContents contents;
    contents.config.architecture = "llama";
    contents.config.vocab_size = contents.config.hidden_size = 64;
    contents.config.num_layers = 1;
    contents.config.num_heads = contents.config.num_kv_heads = 2;
    contents.config.head_dim = contents.config.rope.dim = 32;
    contents.config.intermediate_size = 64;
    contents.config.context_length = 64;
    // The second tensor is two pieces.
    contents.groups = {{GroupKind::kAttention,
                        0,
                        kNoIndex,
                        {{"small", {WeightKind::kF32, WeightOffset::kNone, 0}, 1, 1, 100},
                         {"large", {WeightKind::kF32, WeightOffset::kNone, 0}, 16, 1050, 4100}}}};
    path_ = scratch_ / "model.sluice";
    Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(path_, contents);
    ASSERT_TRUE(writer.ok()) << writer.status().message();
    for (PieceId id = 0; id < (*writer)->pieces().size(); ++id) {
      const PieceEntry& piece = (*writer)->pieces()[id];
      const TileLayout& layout = (*writer)->LayoutOf(piece.tensor);
      std::vector<std::byte> tiles((piece.row_count + layout.tile_rows - 1) / layout.tile_rows *
                                   layout.tile_bytes);
      for (size_t i = 0; i < tiles.size(); ++i) tiles[i] = Expected(id, i);
      ASSERT_TRUE((*writer)->WritePiece(id, tiles).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  static std::byte Expected(PieceId id, size_t i) {
    return static_cast<std::byte>((i * 2654435761u + id) >> 11);
  }

  std::shared_ptr<const SluiceFile> OpenFile() {
    Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(path_);
    EXPECT_TRUE(file.ok()) << file.status().message();
    return *file;
  }

  void FlipByte(uint64_t offset) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const auto byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  // Takes every part of every tensor and compares its tiles.
  static void ExpectAllBytes(WeightStore* store) {
    Result<WeightLease> lease = store->Acquire(0);
    ASSERT_TRUE(lease.ok());
    for (TensorId tensor = 0; tensor < store->file().tensors().size(); ++tensor) {
      const TileLayout& layout = store->file().tensors()[tensor].layout;
      for (const WeightPart& part : lease->Parts(tensor)) {
        Result<const std::byte*> tiles = lease->Take(part);
        ASSERT_TRUE(tiles.ok()) << tiles.status().message();
        for (size_t i = 0; i < part.num_tiles * layout.tile_bytes; ++i) {
          ASSERT_EQ((*tiles)[i], Expected(part.piece, i))
              << "piece " << part.piece << " byte " << i;
        }
      }
    }
  }

  ScratchDirectory scratch_;
  std::string path_;
};

TEST_F(WeightStoreTest, BothStoresHandOutTheBytesOfTheFile) {
  Result<std::unique_ptr<WeightStore>> mapped = OpenMappedStore(OpenFile());
  ASSERT_TRUE(mapped.ok());
  ExpectAllBytes(mapped->get());
  for (int threads : {1, 2, 5}) {
    Result<std::unique_ptr<WeightStore>> resident = OpenResidentStore(OpenFile(), threads, nullptr);
    ASSERT_TRUE(resident.ok()) << resident.status().message();
    ExpectAllBytes(resident->get());
  }
}

TEST_F(WeightStoreTest, ThePartsOfATensorCoverItsRowsInOrder) {
  Result<std::unique_ptr<WeightStore>> store = OpenMappedStore(OpenFile());
  ASSERT_TRUE(store.ok());
  Result<WeightLease> lease = (*store)->Acquire(0);
  ASSERT_TRUE(lease.ok());
  const std::span<const WeightPart> parts = lease->Parts(1);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].row_begin, 0u);
  EXPECT_EQ(parts[1].row_begin, parts[0].row_count);
  EXPECT_EQ(parts[0].row_count + parts[1].row_count, 1050u);
  EXPECT_EQ(parts[0].row_count % 16, 0u);
}

TEST_F(WeightStoreTest, TheTileOfARowIsInItsPiece) {
  Result<std::unique_ptr<WeightStore>> store = OpenMappedStore(OpenFile());
  ASSERT_TRUE(store.ok());
  const TileLayout& layout = (*store)->file().tensors()[1].layout;
  const uint64_t second = (*store)->file().PiecesOf(1)[1].row_begin;
  for (const uint64_t row :
       {uint64_t{0}, uint64_t{15}, uint64_t{16}, second - 1, second, uint64_t{1049}}) {
    Result<const std::byte*> tile = (*store)->TakeTile(1, row);
    ASSERT_TRUE(tile.ok());
    const PieceId piece = row < second ? 1 : 2;
    const uint64_t in_piece = (row < second ? row : row - second) / 16 * layout.tile_bytes;
    EXPECT_EQ(**tile, Expected(piece, in_piece)) << "row " << row;
  }
}

TEST_F(WeightStoreTest, AByteThatChangedOnDiskIsNamed) {
  std::shared_ptr<const SluiceFile> file = OpenFile();
  const PieceEntry piece = file->pieces()[2];
  FlipByte(piece.offset_bytes + 5);
  Result<std::unique_ptr<WeightStore>> resident = OpenResidentStore(file, 2, nullptr);
  EXPECT_EQ(resident.status().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(resident.status().message(), HasSubstr(path_));
  EXPECT_THAT(resident.status().message(), HasSubstr("'large'"));
  EXPECT_THAT(resident.status().message(), HasSubstr(std::to_string(piece.offset_bytes)));
  Result<std::unique_ptr<WeightStore>> mapped = OpenMappedStore(file);
  ASSERT_TRUE(mapped.ok());
  Result<WeightLease> lease = (*mapped)->Acquire(0);
  ASSERT_TRUE(lease.ok());
  EXPECT_TRUE(lease->Take(lease->Parts(1)[0]).ok()) << "the other piece is as it was";
  EXPECT_EQ(lease->Take(lease->Parts(1)[1]).status().code(), ErrorCode::kCorrupt);
  FlipByte(piece.offset_bytes + 5);
  EXPECT_TRUE(lease->Take(lease->Parts(1)[1]).ok()) << "repaired";
}

TEST_F(WeightStoreTest, AFileThatShrinksAfterItWasOpenedIsAnError) {
  std::shared_ptr<const SluiceFile> file = OpenFile();
  ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(file->pieces()[2].offset_bytes + 100)), 0);
  Result<std::unique_ptr<WeightStore>> store = OpenResidentStore(file, 2, nullptr);
  EXPECT_THAT(store.status().code(), AnyOf(ErrorCode::kTruncated, ErrorCode::kIo));
  EXPECT_THAT(store.status().message(), HasSubstr(path_));
}

TEST_F(WeightStoreTest, ProgressGrowsToTheEndAndCanCancel) {
  uint64_t last = 0;
  uint64_t total = 0;
  Result<std::unique_ptr<WeightStore>> store =
      OpenResidentStore(OpenFile(), 3, [&](uint64_t done, uint64_t all) {
        EXPECT_GT(done, last);
        last = done;
        total = all;
        return true;
      });
  ASSERT_TRUE(store.ok());
  EXPECT_EQ(last, total);
  EXPECT_EQ((*store)->stats().ram.resident_bytes, total);
  Result<std::unique_ptr<WeightStore>> cancelled =
      OpenResidentStore(OpenFile(), 3, [](uint64_t, uint64_t) { return false; });
  EXPECT_EQ(cancelled.status().code(), ErrorCode::kCancelled);
}

TEST_F(WeightStoreTest, ManyThreadsTakeTheSamePieces) {
  Result<std::unique_ptr<WeightStore>> store = OpenMappedStore(OpenFile());
  ASSERT_TRUE(store.ok());
  Result<WeightLease> lease = (*store)->Acquire(0);
  ASSERT_TRUE(lease.ok());
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (const WeightPart& part : lease->Parts(1)) good += lease->Take(part).ok() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  const auto& pieces = (*store)->file().pieces();
  EXPECT_EQ((*store)->stats().disk.read_bytes,
            uint64_t{pieces[1].size_bytes} + pieces[2].size_bytes);
}

}  // namespace
}  // namespace sluice
