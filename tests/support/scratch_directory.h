// A directory of its own for a test, removed with all it holds.
#ifndef SLUICE_TESTS_SUPPORT_SCRATCH_DIRECTORY_H_
#define SLUICE_TESTS_SUPPORT_SCRATCH_DIRECTORY_H_

#include <string>
#include <string_view>

namespace sluice {

class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // Writes a file into it and returns the file's path.
  std::string Write(const std::string& name, std::string_view bytes) const;

 private:
  std::string path_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_SCRATCH_DIRECTORY_H_
