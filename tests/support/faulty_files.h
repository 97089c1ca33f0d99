// A FileSystem that goes wrong as a test says: a call fails, the disk is full, the program ends in
// the middle of a call, the power goes.
#ifndef SLUICE_TESTS_SUPPORT_FAULTY_FILES_H_
#define SLUICE_TESTS_SUPPORT_FAULTY_FILES_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "formats/output_file.h"

namespace sluice::testing {

// Calls are counted from 0, in all threads together. Where nothing is said they do their work.
class FaultyFiles : public FileSystem {
 public:
  // Call `call` fails with `error`; with `for_ever` all later ones too.
  void FailAt(uint64_t call, int error, bool for_ever);
  // The program ends in call `call`: of a write the first half is done, of other calls nothing, and
  // nothing of what comes later.
  void DieAt(uint64_t call);
  // The disk takes this many bytes of new data; then writes are short, and then fail. It cannot
  // reserve, and says that it has space without end, as a disk that others fill.
  void LimitSpace(uint64_t bytes) { space_bytes_ = bytes; }
  // What FreeSpace says.
  void SayFree(uint64_t bytes) { free_bytes_ = bytes; }

  // What a loss of power may leave: any of the writes that were not synced are undone, in whole or
  // in part, and so are renames and removals in a folder that was not synced.
  void LosePower(uint32_t seed);

  uint64_t calls() const { return calls_; }
  uint64_t written_bytes() const { return written_bytes_; }
  // "write out.sluice.partial", one for each call.
  const std::vector<std::string>& log() const { return log_; }

  int Open(const std::string& path, int flags) override;
  ssize_t Write(int fd, std::span<const std::byte> bytes, uint64_t offset_bytes) override;
  int Resize(int fd, uint64_t size_bytes) override;
  int Reserve(int fd, uint64_t size_bytes) override;
  int Sync(int fd) override;
  int Rename(const std::string& from, const std::string& to) override;
  int Remove(const std::string& path) override;
  int FreeSpace(int fd, uint64_t* bytes) override;

 private:
  enum class Fate { kWork, kFail, kDie };
  struct Undo {
    uint64_t offset_bytes;
    std::string before;
  };
  struct FolderChange {
    std::string from, to;  // `to` "": removed
    std::string content;   // of what was removed
  };

  Fate Next(const char* call, const std::string& path);

  std::mutex mutex_;
  uint64_t calls_ = 0;
  uint64_t written_bytes_ = 0;
  std::optional<uint64_t> fail_at_, die_at_;
  bool for_ever_ = false;
  int error_ = 0;
  std::optional<uint64_t> space_bytes_, free_bytes_;
  std::map<int, std::string> paths_;
  std::map<std::string, std::vector<Undo>> unsynced_;
  std::vector<FolderChange> unsynced_names_;
  std::vector<std::string> log_;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_FAULTY_FILES_H_
