// What a forward pass on a device needs beside its activations: the batch's arrays where operations
// read them, and the ways in and out.
#ifndef SLUICE_RUNTIME_DEVICE_SCRATCH_H_
#define SLUICE_RUNTIME_DEVICE_SCRATCH_H_

#include <cstdint>
#include <span>
#include <vector>

#include "formats/status.h"
#include "kernels/ops.h"
#include "loaders/architecture.h"
#include "offload/arena.h"
#include "offload/device.h"
#include "runtime/batch.h"

namespace sluice {

// Arrays of a batch in the memory that the operations read, one entry for each token.
struct BatchArrays {
  const int32_t* positions = nullptr;
  const int64_t* slots = nullptr;
  const int64_t* lengths = nullptr;
  const uint32_t* const* block_tables = nullptr;
  const int64_t* tree_begins = nullptr;  // both null where no token of the batch is in a tree
  const uint64_t* ancestors = nullptr;
};

// The best logits of some rows, in memory of the host.
struct BestRows {
  int64_t each = 0;                    // logits of a row
  const float* weight_sums = nullptr;  // [rows]: as TopKArgs has them
  const float* logits = nullptr;       // [rows, each], best first
  const int32_t* ids = nullptr;        // [rows, each]
};

struct DeviceScratchSizes {
  int64_t max_tokens = 0;
  int64_t table_blocks = 0;  // of all different block tables of a batch together
  int64_t row_width = 0;     // of the widest gathered row
  int64_t vocab = 0;
  int64_t logit_rows = 0;
  int64_t attention_scratch = 0;          // floats
  std::vector<int64_t> rope_frequencies;  // floats of each
  int64_t alibi_slopes = 0;
  // Of products in f16 (kernels/cuda/f16_products.h); 0: there are none.
  int64_t panel_values = 0;
  uint64_t workspace_bytes = 0;
};

// What a pass of this model needs; context_tokens is the longest of a sequence.
DeviceScratchSizes DeviceScratchSizesOf(const ModelDescription& model, int64_t vocab,
                                        int64_t max_tokens, int64_t context_tokens,
                                        int64_t table_blocks, bool f16_prompts = false);

// Memory is taken once, at Create. One thread at a time.
class DeviceScratch {
 public:
  static uint64_t DeviceBytes(const DeviceScratchSizes& sizes);
  // Of pinned host memory.
  static uint64_t StagingBytes(const DeviceScratchSizes& sizes);
  // `frequencies`: as many vectors as sizes.rope_frequencies, of those sizes; slopes likewise.
  // `stream` outlives it.
  // Errors: as Arena::Allocate.
  static Result<DeviceScratch> Create(Device* device, DeviceStream* stream,
                                      const DeviceScratchSizes& sizes,
                                      std::span<const std::vector<float>> frequencies,
                                      std::span<const float> alibi_slopes);

  // Waits until the host memory of the batch before has been read. Then rows are written into
  // row_staging(), sent, and the arrays too; End marks what the next Begin waits for.
  Status Begin();
  float* row_staging(size_t index) const { return row_staging_[index]; }  // [max_tokens, row_width]
  static constexpr size_t kRowStagings = 2;
  Status SendRows(size_t index, int64_t floats, float* to);
  // Error: kInternal for tables of more than sizes.table_blocks blocks.
  Result<BatchArrays> SendArrays(const Batch& batch);
  Status End();

  // The `each` best of the first `rows` rows of logits(), by that table's operation. Waits for
  // them. Valid until the next call. REQUIRES: each <= kMostTopK and the vocabulary.
  Result<BestRows> Best(const OpTable& ops, int64_t rows, int64_t each);

  const float* frequencies(size_t index) const { return frequencies_[index]; }
  const float* alibi_slopes() const { return alibi_slopes_; }
  float* logits() const { return logits_; }  // [logit_rows, vocab]
  float* attention_scratch() const { return attention_scratch_; }
  int64_t attention_scratch_size() const { return sizes_.attention_scratch; }
  uint16_t* panel() const { return panel_; }
  int64_t panel_values() const { return sizes_.panel_values; }
  std::byte* workspace() const { return workspace_; }
  uint64_t workspace_bytes() const { return sizes_.workspace_bytes; }

 private:
  // The same places in device memory and in the staging memory.
  struct Arrays {
    int64_t* tree_begins;
    uint64_t* ancestors;
    int32_t* positions;
    int64_t* slots;
    int64_t* lengths;
    const uint32_t** tables;
    uint32_t* table_blocks;
  };
  static Arrays CarveArrays(const DeviceScratchSizes& sizes, class Carver* carver);

  DeviceScratchSizes sizes_;
  Arena memory_;
  Arena staging_;
  Arrays device_ = {};
  Arrays host_ = {};
  float* row_staging_[kRowStagings] = {};
  std::vector<float*> frequencies_;
  float* alibi_slopes_ = nullptr;
  float* logits_ = nullptr;
  float* best_ = nullptr;       // weight sums, logits, ids of Best
  float* host_best_ = nullptr;  // the same in the staging memory
  float* attention_scratch_ = nullptr;
  uint16_t* panel_ = nullptr;
  std::byte* workspace_ = nullptr;
  DeviceStream* stream_ = nullptr;
  DeviceEvent sent_;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_DEVICE_SCRATCH_H_
