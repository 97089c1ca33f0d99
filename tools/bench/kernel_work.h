// The operations of a CPU table with all that a call needs, for kernels_benchmark.
#ifndef SLUICE_TOOLS_BENCH_KERNEL_WORK_H_
#define SLUICE_TOOLS_BENCH_KERNEL_WORK_H_

#include <cstdint>
#include <functional>

#include "formats/status.h"
#include "formats/weight_type.h"
#include "kernels/ops.h"
#include "runtime/parallel.h"

namespace sluice {

// What an operation's arithmetic is compared with.
enum class Peak { kInteger, kFloat, kBf16 };

// An operation that is ready to run, with its buffers.
struct Work {
  double bytes = 0;       // that it must read and write at least
  double operations = 0;  // 0: none worth counting
  Peak peak = Peak::kFloat;
  int64_t items = 0;
  int64_t grain = 1;
  std::function<void(int64_t begin, int64_t end)> run;
  std::function<void()> finish = [] {};  // after all ranges
  Status status = Status();

  void RunOn(ThreadTeam* team) const {
    team->For(items, grain, run);
    finish();
  }
};

// Makes an operation ready, for one table.
using Prepare = std::function<Work(const OpTable&)>;

// A matrix of `rows` rows (ref, which takes seconds for what others do in milliseconds, gets a part
// of them). bf16: the products of matmul_bf16.
Prepare Matmul(const WeightType& type, int64_t rows, int64_t cols, int64_t tokens, bool bf16);
// `count` rows of a matrix.
Prepare GatherRows(const WeightType& type, int64_t rows, int64_t cols, int64_t count);

// An operation on rows of activations, for tokens [begin, end): `streams` numbers are read or
// written for each element. x and y are [tokens, width], `weight` is [width].
using RowCall = std::function<void(const OpTable& table, float* x, float* y, float* weight,
                                   int64_t begin, int64_t end)>;
Prepare OnRows(int64_t tokens, int64_t width, double streams, const RowCall& call);
Prepare Quantize(int64_t tokens, int64_t width);
Prepare RoundBf16(int64_t tokens, int64_t width);

struct Heads {
  int64_t query, kv, dim;
};
Prepare Rope(const Heads& heads, int64_t tokens);
Prepare StoreKv(const Heads& heads, int64_t tokens);

// The last `tokens` tokens of a context; `tree`: they are nodes of a draft tree, each the child of
// the one at half its number; `window`: keys that each sees, 0 for all.
struct Attend {
  Heads heads;
  int64_t tokens;
  int64_t context;
  int64_t window = 0;
  bool tree = false;
  bool split = false;  // the context is divided, and put together again
};
Prepare Attention(const Attend& c);

}  // namespace sluice

#endif  // SLUICE_TOOLS_BENCH_KERNEL_WORK_H_
