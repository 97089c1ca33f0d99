// Heads that a configuration ties to the embedding, and that are stored all the same. Private to
// loaders.
#ifndef SLUICE_LOADERS_TIED_HEAD_H_
#define SLUICE_LOADERS_TIED_HEAD_H_

#include <memory>
#include <vector>

#include "formats/status.h"
#include "loaders/checkpoint_source.h"

namespace sluice {

// Whether embedding and head are both there and not equal: then transformers (since 5) does not tie
// them, whatever the configuration says. Reads both up to their first difference. Errors: kIo,
// kTruncated.
Result<bool> HeadIsAnother(const TensorDialect& dialect, const std::vector<ForeignTensor>& foreign,
                           const std::vector<std::unique_ptr<ByteSource>>& files);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TIED_HEAD_H_
