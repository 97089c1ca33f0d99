// The file behind a Storage.
#ifndef SLUICE_OFFLOAD_STORAGE_FILE_H_
#define SLUICE_OFFLOAD_STORAGE_FILE_H_

#include <string>

#include "formats/status.h"
#include "offload/storage.h"

namespace sluice {

// An open descriptor, for direct reads if they were wanted and work.
class StorageFile {
 public:
  static constexpr uint32_t kDirectAlignment = 4096;

  // Errors: kIo, kNotFound.
  static Result<StorageFile> Open(const std::string& path, bool direct);
  StorageFile(StorageFile&& other) noexcept;
  StorageFile& operator=(StorageFile&& other) noexcept;
  ~StorageFile();

  int descriptor() const { return descriptor_; }
  bool direct() const { return direct_; }

 private:
  StorageFile(int descriptor, bool direct) : descriptor_(descriptor), direct_(direct) {}
  int descriptor_;
  bool direct_;
};

std::unique_ptr<Storage> MakePreadStorage(StorageFile file, const StorageOptions& options);

// Takes the file only when it succeeds. Errors: kUnsupported with the reason.
Result<std::unique_ptr<Storage>> MakeUringStorage(StorageFile* file, const StorageOptions& options);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_STORAGE_FILE_H_
