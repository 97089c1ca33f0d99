// A model in GGUF: one file, or the shards that llama.cpp's gguf-split makes of it, named
// PREFIX-00001-of-00003.gguf and so on.
#ifndef SLUICE_FORMATS_GGUF_SET_H_
#define SLUICE_FORMATS_GGUF_SET_H_

#include <memory>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/mapped_file.h"
#include "formats/status.h"

namespace sluice {

struct GgufSet {
  ByteSources files;  // in order; GgufTensor::file_index counts them
  GgufFile header;    // the metadata of the first shard, the tensors of all of them
};

// `file` is the model's only file, or any one of its shards; the others are opened beside it.
// Checks that each shard is the one that its name says, that all agree on how many shards and
// tensors there are, that all tensors are there, and none twice.
// Errors: those of GgufFile::Read and ReadOnlyFile::Open (kNotFound names the shard that is
// missing), kUnsupported (a shard under a name that does not lead to the others), kCorrupt (shards
// that do not belong together), kDoesNotFit (more than `max_memory_bytes` of memory for all
// headers). Each names the file.
Result<GgufSet> OpenGgufSet(std::unique_ptr<ByteSource> file,
                            uint64_t max_memory_bytes = UINT64_MAX);

// The files of the set to which `path` belongs by its name alone, in order; `path` itself if it is
// not named as a shard.
std::vector<std::string> GgufShardPaths(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_FORMATS_GGUF_SET_H_
