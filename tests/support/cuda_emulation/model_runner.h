// A model with all that a pass needs and a cache for two sequences: on the host with a table of the
// processor's, on an emulated GPU, whose memory the host cannot touch, with that of GPUs. A failure
// fails the test.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_MODEL_RUNNER_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_MODEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/sluice_file.h"
#include "kernels/ops.h"
#include "offload/weight_store.h"
#include "runtime/draft_tree.h"
#include "runtime/forward.h"
#include "runtime/kv_cache.h"
#include "runtime/parallel.h"
#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/fake_device.h"

namespace sluice::test {

class ModelRunner {
 public:
  static constexpr int64_t kContext = 128;  // of each sequence, and of a pass

  ModelRunner(const std::string& path, const OpTable& table, KvType kv_type, int threads = 1);
  ~ModelRunner();

  int64_t vocab() const { return file_->config().vocab_size; }
  FakeDevice& device() { return device_; }
  EmulatedGpu& gpu() { return *gpu_; }
  Forward& forward() { return *forward_; }
  int64_t length(size_t sequence) const { return lengths_[sequence]; }
  void set_length(size_t sequence, int64_t length) { lengths_[sequence] = length; }

  // The next tokens of a sequence, into the batch; a chain.
  void Add(size_t sequence, const std::vector<int32_t>& ids, Batch* batch);
  // A tree behind the sequence's tokens, which stays as long as it is.
  void AddTree(size_t sequence, const DraftTree& tree, Batch* batch);
  // Logits of the wanted tokens.
  std::vector<float> Run(Batch batch);

  // A pass of one sequence; the logits of all its tokens.
  std::vector<float> Append(size_t sequence, const std::vector<int32_t>& ids);
  std::vector<float> Verify(size_t sequence, const DraftTree& tree);
  // The path to a node of the tree that was verified last becomes the sequence's.
  void Keep(size_t sequence, const DraftTree& tree, int64_t node);

 private:
  ThreadTeam team_;
  std::shared_ptr<const SluiceFile> file_;
  FakeDevice device_;
  std::optional<EmulatedGpu> gpu_;
  std::unique_ptr<WeightStore> store_;
  ModelDescription description_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Forward> forward_;
  DeviceStream stream_;  // ends first: its work uses what is above
  BlockTable tables_[2];
  int64_t lengths_[2] = {0, 0};
};

// Of logits from others; NaN is as far as can be.
struct LogitsDistance {
  double root_mean_square = 0;
  double largest = 0;
};
LogitsDistance DistanceOf(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_MODEL_RUNNER_H_
