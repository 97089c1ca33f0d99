// The files of a checkpoint, and what they are known by: cheaply, and by their content.
#ifndef SLUICE_TOOLS_SOURCE_FILES_H_
#define SLUICE_TOOLS_SOURCE_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "formats/status.h"

namespace sluice {

struct SourceFiles {
  std::string directory;           // canonical
  std::vector<std::string> names;  // relative to the directory, in order
};

// Of a directory those that a conversion may read, by their extension, and further chat templates
// in the directory that transformers keeps them in; of a GGUF file all of its
// shards, whichever was named. Errors: kNotFound, kIo.
Result<SourceFiles> SourceFilesOf(const std::string& source);

// Changes when a file changes that is not made to look unchanged: paths, sizes, times. Errors: kIo.
Result<uint64_t> IdentityOf(const SourceFiles& files);

// Hash of all bytes, whatever the files' directory and times are; of GGUF files whatever their
// names are. Reads everything, with a progress bar. Errors: kIo, kCancelled.
Result<uint64_t> ContentOf(const SourceFiles& files, bool quiet);

}  // namespace sluice

#endif  // SLUICE_TOOLS_SOURCE_FILES_H_
