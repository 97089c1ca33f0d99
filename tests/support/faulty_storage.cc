#include "tests/support/faulty_storage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

namespace sluice::testing {
namespace {

class FaultyStorage : public Storage {
 public:
  FaultyStorage(int descriptor, const Fault& fault)
      : descriptor_(descriptor), fault_(fault), random_(fault.seed) {}
  ~FaultyStorage() override {
    EXPECT_TRUE(fault_.may_be_given_up || on_the_way_.empty()) << "a buffer is given up while a read may still write to it";
    close(descriptor_);
  }

  const std::string& description() const override { return description_; }
  uint32_t alignment() const override { return fault_.alignment; }
  int depth() const override { return fault_.depth; }

  void Submit(const StorageRead& read) override {
    EXPECT_LT(on_the_way_.size(), static_cast<size_t>(fault_.depth));
    EXPECT_EQ(read.offset_bytes % fault_.alignment, 0u);
    EXPECT_EQ(read.size_bytes % fault_.alignment, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(read.buffer) % fault_.alignment, 0u);
    EXPECT_GT(read.size_bytes, 0u);
    on_the_way_.push_back(read);
  }

  void Wait(std::vector<StorageDone>* done) override {
    ASSERT_FALSE(on_the_way_.empty());
    const auto which = on_the_way_.begin() + static_cast<ptrdiff_t>(random_() % on_the_way_.size());
    const StorageRead read = *which;
    on_the_way_.erase(which);
    const ssize_t got =
        pread(descriptor_, read.buffer, read.size_bytes, static_cast<off_t>(read.offset_bytes));
    int64_t result = got < 0 ? -int64_t{errno} : got;
    if (fault_.hook) fault_.hook(number_++, read, &result);
    done->push_back({read.tag, result});
  }

 private:
  int descriptor_;
  Fault fault_;
  std::mt19937 random_;
  uint64_t number_ = 0;
  std::vector<StorageRead> on_the_way_;
  std::string description_ = "faulty";
};

}  // namespace

Result<std::unique_ptr<Storage>> OpenFaultyStorage(const std::string& path, const Fault& fault) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return Status(ErrorCode::kIo, path);
  return std::unique_ptr<Storage>(std::make_unique<FaultyStorage>(descriptor, fault));
}

}  // namespace sluice::testing
