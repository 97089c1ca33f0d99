// Files and directories that people take for a checkpoint, and what to do about each. Private to
// loaders.
#ifndef SLUICE_LOADERS_OTHER_LAYOUTS_H_
#define SLUICE_LOADERS_OTHER_LAYOUTS_H_

#include <string>

#include "formats/mapped_file.h"
#include "formats/status.h"

namespace sluice {

// kNotFound for the few lines that Git keeps in place of a large file that was not fetched; else
// ok, also where the file cannot be read.
Status RefuseGitLfsPointer(const ByteSource& file);

// Why a directory without config.json, or without safetensors of the usual names, is none that can
// be read, and the cure where one is known. Both name a file that is there. kUnsupported,
// kNotFound.
Status NoConfiguration(const std::string& directory);
Status NoWeights(const std::string& directory);

}  // namespace sluice

#endif  // SLUICE_LOADERS_OTHER_LAYOUTS_H_
