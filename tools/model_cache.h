// MODEL on the command line that is no .sluice file: converted once, into the user's cache.
#ifndef SLUICE_TOOLS_MODEL_CACHE_H_
#define SLUICE_TOOLS_MODEL_CACHE_H_

#include <string>

#include "formats/status.h"
#include "loaders/convert.h"

namespace sluice {

// $SLUICE_CACHE, or sluice in $XDG_CACHE_HOME or in ~/.cache. Made if it is not there.
// Errors: kIo; kInvalidArgument when neither those nor $HOME are set.
Result<std::string> CacheDirectory();

// Whether the file begins as a .sluice file does. Errors: kNotFound, kIo.
Result<bool> IsSluiceFile(const std::string& path);

// `model` itself if it is a .sluice file; else the path of its conversion in the cache, made now if
// it is not there. The name in the cache holds a hash of the source's content, so a copy is not
// converted again, and a changed source is. The content is read when paths, sizes and times of the
// files are new. Several processes may ask at once: one converts, the others wait for it. A
// conversion that was interrupted goes on. Errors: those of ConvertCheckpoint and CacheDirectory.
Result<std::string> SluiceFileFor(const std::string& model, bool quiet);

// ConvertCheckpoint with a progress bar, ended by Ctrl-C.
Result<ConvertReport> ConvertWithProgress(const std::string& source, const std::string& output,
                                          ConvertOptions options, bool quiet);

}  // namespace sluice

#endif  // SLUICE_TOOLS_MODEL_CACHE_H_
