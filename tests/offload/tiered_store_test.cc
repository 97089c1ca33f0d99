// Weights that stream: the same bytes as the file's whatever the split and the drive do, or an
// error.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "formats/sluice_writer.h"
#include "offload/weight_store.h"
#include "tests/support/faulty_memory.h"
#include "tests/support/faulty_storage.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::AnyOf;
using testing::Fault;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

// Four layers of an attention and an FFN group, each a norm and matrices of some MiB, the larger
// ones of several pieces; an embedding; a head.
class TieredStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const WeightType f32 = {WeightKind::kF32, WeightOffset::kNone, 0};
    SluiceContents contents;
    contents.config.architecture = "llama";
    contents.config.vocab_size = contents.config.hidden_size = 64;
    contents.config.num_layers = 4;
    contents.config.num_heads = contents.config.num_kv_heads = 2;
    contents.config.head_dim = contents.config.rope.dim = 32;
    contents.config.intermediate_size = contents.config.context_length = 64;
    contents.groups.push_back(
        {GroupKind::kEmbedding, kNoIndex, kNoIndex, {{"embedding", f32, 1, 3000, 256}}});
    for (uint32_t layer = 0; layer < 4; ++layer) {
      const std::string prefix = "layers." + std::to_string(layer);
      contents.groups.push_back(
          {GroupKind::kAttention,
           layer,
           kNoIndex,
           {{prefix + ".norm", f32, 1, 1, 256}, {prefix + ".qkv", f32, 16, 700, 256}}});
      contents.groups.push_back({GroupKind::kFfn,
                                 layer,
                                 kNoIndex,
                                 {{prefix + ".norm2", f32, 1, 1, 256},
                                  {prefix + ".up", f32, 16, 5000, 1024},
                                  {prefix + ".down", f32, 16, 256, 2000}}});
    }
    contents.groups.push_back({GroupKind::kHead,
                               kNoIndex,
                               kNoIndex,
                               {{"norm", f32, 1, 1, 256}, {"head", f32, 16, 3000, 256}}});
    path_ = scratch_ / "model.sluice";
    Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(path_, contents);
    ASSERT_TRUE(writer.ok()) << writer.status().message();
    for (PieceId id = 0; id < (*writer)->pieces().size(); ++id) {
      const PieceEntry& piece = (*writer)->pieces()[id];
      const TileLayout& layout = (*writer)->LayoutOf(piece.tensor);
      std::vector<std::byte> tiles((piece.row_count + layout.tile_rows - 1) / layout.tile_rows *
                                   layout.tile_bytes);
      auto* words = reinterpret_cast<uint32_t*>(tiles.data());
      for (size_t i = 0; i < tiles.size() / 4; ++i) words[i] = Word(id, i);
      ASSERT_TRUE((*writer)->WritePiece(id, tiles).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
    file_ = *SluiceFile::Open(path_);
    groups_ = PlacementGroups(*file_);
  }

  static uint32_t Word(PieceId id, size_t i) {
    return static_cast<uint32_t>(i * 2654435761u + id * 40503u);
  }

  Placement Place(uint64_t budget, uint64_t ring = 256 * kMiB) {
    Result<Placement> placement =
        PlaceGroups(groups_, {.budget_bytes = budget, .ring_bytes = ring, .rules = {}});
    EXPECT_TRUE(placement.ok()) << placement.status().message();
    return *placement;
  }

  std::unique_ptr<WeightStore> Open(const Placement& placement, const Fault* fault = nullptr) {
    TieredOptions options;
    options.threads = 2;
    if (fault != nullptr) {
      options.open_storage = [this, fault](std::span<std::byte>) {
        return testing::OpenFaultyStorage(path_, *fault);
      };
    }
    Result<std::unique_ptr<WeightStore>> store = OpenTieredStore(file_, placement, options);
    EXPECT_TRUE(store.ok()) << store.status().message();
    return store.ok() ? std::move(*store) : nullptr;
  }

  // All parts of a group, in order, by two threads; the first error.
  static Status UseGroup(WeightStore* store, GroupId group) {
    Result<WeightLease> lease = store->Acquire(group);
    if (!lease.ok()) return lease.status();
    const GroupEntry& entry = store->file().groups()[group];
    for (TensorId tensor = entry.first_tensor; tensor < entry.first_tensor + entry.tensor_count;
         ++tensor) {
      for (const WeightPart& part : lease->Parts(tensor)) {
        Status first;
        std::thread other([&] { (void)CheckPart(*store, *lease, part); });
        first = CheckPart(*store, *lease, part);
        other.join();
        if (!first.ok()) return first;
        lease->Done(part);
      }
    }
    return Status();
  }

  static Status CheckPart(const WeightStore& store, const WeightLease& lease,
                          const WeightPart& part) {
    Result<const std::byte*> tiles = lease.Take(part);
    if (!tiles.ok()) return tiles.status();
    const auto* words = reinterpret_cast<const uint32_t*>(*tiles);
    size_t left = part.num_tiles * store.file().tensors()[part.tensor].layout.tile_bytes / 4;
    for (PieceId piece = part.piece; left > 0; ++piece) {
      const size_t count = std::min<size_t>(left, store.file().pieces()[piece].size_bytes / 4);
      for (size_t i = 0; i < count; i += 61) {
        if (words[i] != Word(piece, i)) {
          ADD_FAILURE() << "piece " << piece << " word " << i;
          break;
        }
      }
      words += count;
      left -= count;
    }
    return Status();
  }

  // One pass over all groups but the embedding; with_head as passes that want logits.
  Status Pass(WeightStore* store, bool with_head = true) {
    for (GroupId group = 1; group < file_->groups().size(); ++group) {
      if (!with_head && file_->groups()[group].kind == GroupKind::kHead) continue;
      if (Status status = UseGroup(store, group); !status.ok()) return status;
    }
    return Status();
  }

  uint64_t CycleBytes() const {
    uint64_t bytes = 0;
    for (const PlacementGroup& group : groups_) {
      if (group.kind != GroupKind::kEmbedding) bytes += group.matrix_bytes + group.vector_bytes;
    }
    return bytes;
  }

  ScratchDirectory scratch_;
  std::string path_;
  std::shared_ptr<const SluiceFile> file_;
  std::vector<PlacementGroup> groups_;
};

TEST_F(TieredStoreTest, EverySplitGivesTheBytesOfTheFile) {
  for (uint64_t budget :
       {SmallestBudget(groups_), CycleBytes() / 2 + 48 * kMiB, CycleBytes() - 1, CycleBytes()}) {
    const std::unique_ptr<WeightStore> store = Open(Place(budget));
    ASSERT_NE(store, nullptr);
    for (int pass = 0; pass < 3; ++pass) ASSERT_TRUE(Pass(store.get()).ok());
  }
}

TEST_F(TieredStoreTest, AResidentTensorIsOnePartAndAStreamedOneHasThoseOfItsPieces) {
  const TensorId up = file_->Find("layers.1.up");
  const size_t pieces = file_->tensors()[up].piece_count;
  ASSERT_GT(pieces, 1u);
  const std::unique_ptr<WeightStore> resident = Open(Place(CycleBytes()));
  const std::unique_ptr<WeightStore> streamed = Open(Place(SmallestBudget(groups_)));
  const Result<WeightLease> all = resident->Acquire(4);
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->Parts(up).size(), 1u);
  EXPECT_EQ(all->Parts(up)[0].row_count, 5000u);
  EXPECT_EQ(all->Parts(up)[0].num_tiles, 313u);
  const Result<WeightLease> parts = streamed->Acquire(4);
  ASSERT_TRUE(parts.ok());
  EXPECT_EQ(parts->Parts(up).size(), pieces);
}

TEST_F(TieredStoreTest, AReaderThatRunsOutOfMemoryIsAnErrorAndNoHang) {
  const std::thread::id main = std::this_thread::get_id();
  for (const uint64_t last : {0u, 1u, 7u, 20u}) {
    Fault fault;
    fault.may_be_given_up = true;
    fault.hook = [main, last](uint64_t number, const StorageRead&, int64_t*) {
      if (number >= last && std::this_thread::get_id() != main) throw std::bad_alloc();
    };
    const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)), &fault);
    ASSERT_NE(store, nullptr);
    Status status;
    for (int pass = 0; pass < 9 && status.ok(); ++pass) status = Pass(store.get());
    EXPECT_EQ(status.code(), ErrorCode::kOutOfMemory) << status.message();
    EXPECT_EQ(Pass(store.get()).code(), ErrorCode::kOutOfMemory);
  }
}

TEST_F(TieredStoreTest, SteadyPassesReadEachStreamedByteOnce) {
  const Placement placement = Place(SmallestBudget(groups_));
  const std::unique_ptr<WeightStore> store = Open(placement);
  ASSERT_TRUE(Pass(store.get()).ok());
  const uint64_t before = store->stats().disk.read_bytes;
  for (int pass = 0; pass < 4; ++pass) ASSERT_TRUE(Pass(store.get()).ok());
  const uint64_t read = store->stats().disk.read_bytes - before;
  EXPECT_GE(read + placement.ring_bytes, 4 * placement.streamed_bytes);
  EXPECT_LE(read, 4 * placement.streamed_bytes + placement.ring_bytes);
}

TEST_F(TieredStoreTest, PassesWithoutTheHeadDoNotReadItIfTheySaySo) {
  const Placement placement = Place(SmallestBudget(groups_));
  const uint64_t head = groups_.back().matrix_bytes;
  const std::unique_ptr<WeightStore> store = Open(placement);
  std::vector<GroupId> without;
  for (GroupId group = 1; group + 1 < file_->groups().size(); ++group) without.push_back(group);
  store->SetGroupsInUse(without);
  ASSERT_TRUE(Pass(store.get(), false).ok());
  const uint64_t before = store->stats().disk.read_bytes;
  for (int pass = 0; pass < 4; ++pass) ASSERT_TRUE(Pass(store.get(), false).ok());
  EXPECT_LE(store->stats().disk.read_bytes - before,
            4 * (placement.streamed_bytes - head) + placement.ring_bytes);
  store->SetGroupsInUse({});
  ASSERT_TRUE(Pass(store.get()).ok());
}

TEST_F(TieredStoreTest, PassesThatLeaveOutGroupsUnannouncedOrEndInTheMiddleAreServed) {
  const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)));
  ASSERT_TRUE(Pass(store.get(), false).ok());
  ASSERT_TRUE(Pass(store.get(), false).ok());
  for (GroupId group : {1u, 2u, 3u, 1u, 2u, 6u, 5u, 9u, 9u, 1u})
    ASSERT_TRUE(UseGroup(store.get(), group).ok()) << group;
  {
    Result<WeightLease> lease = store->Acquire(2);  // taken and given up
    ASSERT_TRUE(lease.ok());
    ASSERT_TRUE(lease->Take(lease->Parts(file_->groups()[2].first_tensor + 1)[0]).ok());
  }
  ASSERT_TRUE(Pass(store.get()).ok());
}

TEST_F(TieredStoreTest, RowsOfAnEmbeddingAndOfAStreamedHeadAreGathered) {
  const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)));
  const TensorId embedding = file_->Find("embedding");
  const TensorId head = file_->Find("head");
  for (uint64_t row : {0u, 1u, 15u, 16u, 2047u, 2999u}) {
    Result<const std::byte*> tile = store->TakeTile(embedding, row);
    ASSERT_TRUE(tile.ok()) << tile.status().message();
    uint32_t word;
    std::memcpy(&word, *tile, 4);
    EXPECT_EQ(word, Word(file_->tensors()[embedding].first_piece, row * 256));
    tile = store->TakeTile(head, row);
    ASSERT_TRUE(tile.ok());
    std::memcpy(&word, *tile, 4);
    EXPECT_EQ(word, Word(file_->tensors()[head].first_piece, row / 16 * 16 * 256));
  }
}

TEST_F(TieredStoreTest, ReadsThatAreShortLateOrOutOfOrderChangeNothing) {
  for (uint32_t seed = 0; seed < 4; ++seed) {
    const Fault fault = {.hook =
                             [](uint64_t number, const StorageRead&, int64_t* result) {
                               if (number % 5 == 0) *result = std::min<int64_t>(*result, 8192);
                               if (number % 7 == 0) *result = -EINTR;
                               if (number % 11 == 0)
                                 std::this_thread::sleep_for(std::chrono::milliseconds(2));
                             },
                         .seed = seed};
    const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)), &fault);
    ASSERT_TRUE(Pass(store.get()).ok());
    ASSERT_TRUE(Pass(store.get()).ok());
    // On a busy machine a late read may come before somebody waits for it, but not each time.
    for (int pass = 0; pass < 100 && store->stats().disk.late_bytes == 0; ++pass) {
      ASSERT_TRUE(Pass(store.get()).ok());
    }
    EXPECT_GT(store->stats().disk.stall_s, 0);
    EXPECT_GT(store->stats().disk.late_bytes, 0u);
  }
}

TEST_F(TieredStoreTest, AnErrorOfTheDriveEndsThePassAndTheNextOneWorks) {
  std::atomic<bool> broken = false;
  const Fault fault = {.hook = [&](uint64_t, const StorageRead&, int64_t* result) {
    if (broken) *result = -EIO;
  }};
  const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)), &fault);
  ASSERT_TRUE(Pass(store.get()).ok());
  for (int repeat = 0; repeat < 3; ++repeat) {
    broken = true;
    Status status;
    for (int pass = 0; pass < 3 && status.ok(); ++pass)
      status = Pass(store.get());  // the ring holds some
    EXPECT_EQ(status.code(), ErrorCode::kIo);
    EXPECT_THAT(status.message(), HasSubstr(path_));
    EXPECT_THAT(status.message(), HasSubstr("offset"));
    EXPECT_THAT(status.message(), HasSubstr("tensor '"));
    EXPECT_THAT(status.message(), HasSubstr("Input/output error"));
    broken = false;
    // What failed while it was read ahead is told to the pass that meets it, once.
    (void)Pass(store.get());
    ASSERT_TRUE(Pass(store.get()).ok()) << repeat;
  }
}

TEST_F(TieredStoreTest, AByteFlippedOnItsWayIsFoundNamedAndReadAnewByTheNextPass) {
  const PieceId victim = file_->tensors()[file_->Find("layers.2.up")].first_piece;
  const uint64_t offset = file_->pieces()[victim].offset_bytes + 4 * kMiB;
  std::atomic<bool> flips = false;
  const Fault fault = {.hook = [&](uint64_t, const StorageRead& read, int64_t*) {
    if (flips && read.offset_bytes <= offset && offset < read.offset_bytes + read.size_bytes) {
      read.buffer[offset - read.offset_bytes] ^= std::byte{4};
    }
  }};
  const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)), &fault);
  ASSERT_TRUE(Pass(store.get()).ok());
  flips = true;
  Status status;
  for (int pass = 0; pass < 2 && status.ok(); ++pass) status = Pass(store.get());
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr("layers.2.up"));
  EXPECT_THAT(status.message(), HasSubstr(std::to_string(offset)));
  flips = false;
  EXPECT_TRUE(Pass(store.get()).ok());
}

TEST_F(TieredStoreTest, AByteFlippedOnDiskBetweenTwoPassesIsFound) {
  const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)));
  ASSERT_TRUE(Pass(store.get()).ok());
  const PieceId victim = file_->tensors()[file_->Find("layers.1.down")].first_piece;
  std::fstream disk(path_, std::ios::in | std::ios::out | std::ios::binary);
  disk.seekp(static_cast<std::streamoff>(file_->pieces()[victim].offset_bytes + 100));
  disk.put('\x55');
  disk.close();
  Status status;
  for (int pass = 0; pass < 2 && status.ok(); ++pass) status = Pass(store.get());
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
  EXPECT_THAT(status.message(), HasSubstr("layers.1.down"));
}

TEST_F(TieredStoreTest, AFileThatIsTruncatedWhileItIsOpenIsAnErrorForPassesAndRows) {
  const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)));
  ASSERT_TRUE(Pass(store.get()).ok());
  ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(file_->pieces()[0].offset_bytes + 4096)), 0);
  Status status;
  for (int pass = 0; pass < 2 && status.ok(); ++pass) status = Pass(store.get());
  EXPECT_THAT(status.code(), AnyOf(ErrorCode::kTruncated, ErrorCode::kIo));
  EXPECT_THAT(status.message(), HasSubstr(path_));
  EXPECT_EQ(store->TakeTile(file_->Find("embedding"), 2000).status().code(), ErrorCode::kTruncated);
}

TEST_F(TieredStoreTest, AnErrorWhileResidentWeightsAreLoadedIsTold) {
  const Fault fault = {.hook = [](uint64_t number, const StorageRead&, int64_t* result) {
    if (number > 3) *result = -EIO;
  }};
  TieredOptions options;
  options.open_storage = [&](std::span<std::byte>) {
    return testing::OpenFaultyStorage(path_, fault);
  };
  const Result<std::unique_ptr<WeightStore>> store =
      OpenTieredStore(file_, Place(CycleBytes()), options);
  EXPECT_EQ(store.status().code(), ErrorCode::kIo);
  EXPECT_THAT(store.status().message(), HasSubstr(path_));
}

TEST_F(TieredStoreTest, EachAllocationThatFailsIsNamedAndLeavesNothing) {
  const Placement placement = Place(SmallestBudget(groups_) + 8 * kMiB);
  ASSERT_GT(placement.ring_bytes, 0u);
  std::set<std::string> messages;
  int call = 0;
  while (true) {
    testing::FaultyMemory memory(call++);
    {
      Result<std::unique_ptr<WeightStore>> store = OpenTieredStore(file_, placement, {});
      if (store.ok()) {
        EXPECT_LT(memory.calls(), call);  // none was left to fail
        EXPECT_TRUE(Pass(store->get()).ok());
        EXPECT_GT(memory.mapped_bytes(), 0);
        break;
      }
      EXPECT_EQ(store.status().code(), ErrorCode::kOutOfMemory);
      EXPECT_THAT(store.status().message(), HasSubstr("Cannot allocate memory"));
      messages.insert(store.status().message());
    }
    EXPECT_EQ(memory.mapped_bytes(), 0);
  }
  // The arena of resident weights, and the ring: each with its own name and size.
  EXPECT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages.count(fmt::format("the ring that weights stream through: memory of {} bytes: "
                                       "Cannot allocate memory",
                                       placement.ring_bytes)),
            1u);
  EXPECT_NE(Open(placement), nullptr);
}

// The system may be without memory for a moment, at any read.
TEST_F(TieredStoreTest, EachReadThatFailsOnceForWantOfMemoryIsTriedAgain) {
  for (uint64_t call = 0; call < 40; call += 3) {
    std::atomic<bool> failed = false;
    const Fault fault = {.hook = [&](uint64_t number, const StorageRead&, int64_t* result) {
      if (number != call) return;
      failed = true;
      *result = -ENOMEM;
    }};
    const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)), &fault);
    ASSERT_NE(store, nullptr);
    ASSERT_TRUE(Pass(store.get()).ok()) << call;
    ASSERT_TRUE(Pass(store.get()).ok()) << call;
    EXPECT_TRUE(failed) << call;
  }
}

TEST_F(TieredStoreTest, AStoreEndsWhileReadsAreOnTheirWay) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    const Fault fault = {.hook = [](uint64_t, const StorageRead&, int64_t*) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }};
    const std::unique_ptr<WeightStore> store = Open(Place(SmallestBudget(groups_)), &fault);
    if (repeat % 2 == 0) {
      ASSERT_TRUE(UseGroup(store.get(), 1).ok());
    }
  }
}

}  // namespace
}  // namespace sluice
