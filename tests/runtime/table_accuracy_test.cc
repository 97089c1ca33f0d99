// Logits of whole models: every fast table against `ref`, within a bound that the quantization of
// activations implies.
//
// A fast table rounds the inputs of a quantized matrix to integers, in groups: an error between
// -S/2 and S/2 per channel, where S is the group's scale, largest magnitude / 127. What that does
// to the logits is computed, not guessed: `ref` runs with noise of that distribution on the inputs
// of the same matrices, several times with different noise. The spread of the logits over these
// runs is what the table's logits may differ from those of `ref` by: at most 1.25 times as much in
// the mean over all logits, and for no single one more than twice the largest seen in those
// runs, where a difference counts relative to its token's spread. Noise of the whole step is
// uniform as rounding is; equal inputs get equal noise, because a table quantizes them once.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "loaders/architecture.h"
#include "offload/weight_store.h"
#include "runtime/forward.h"
#include "tests/support/golden_model.h"
#include "tests/support/sanitized.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

constexpr int kNoiseRuns = 8;
constexpr double kMeanFactor = 1.25;
constexpr double kLargestFactor = 2;

uint64_t g_noise_seed = 0;

// Uniform in [-1/2, 1/2), a function of the input's bits, its place and the run.
float Noise(float x, int64_t k) {
  uint64_t z =
      (uint64_t{std::bit_cast<uint32_t>(x)} << 20) + static_cast<uint64_t>(k) + g_noise_seed;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;  // SplitMix64 (Steele, Lea and Flood, 2014)
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<float>(static_cast<double>(z >> 11) * 0x1p-53 - 0.5);
}

void NoisyMatmul(const MatmulArgs& args, CUstream_st* stream) {
  if (!args.layout->type.quantized()) return kRefTable.matmul(args, stream);
  const auto cols = static_cast<int64_t>(args.layout->cols);
  const int64_t group = ActivationGroup(args.layout->type);
  std::vector<float> noisy(static_cast<size_t>(args.tokens * cols));
  for (int64_t t = 0; t < args.tokens; ++t) {
    const float* x = args.x + t * args.x_stride;
    for (int64_t begin = 0; begin < cols; begin += group) {
      const int64_t end = std::min(cols, begin + group);
      float largest = 0;
      for (int64_t k = begin; k < end; ++k) largest = std::max(largest, std::fabs(x[k]));
      for (int64_t k = begin; k < end; ++k) {
        noisy[static_cast<size_t>(t * cols + k)] = x[k] + Noise(x[k], k) * largest / 127;
      }
    }
  }
  MatmulArgs with_noise = args;
  with_noise.x = noisy.data();
  with_noise.x_stride = cols;
  kRefTable.matmul(with_noise, stream);
}

// As if a kernel took the scale of the first group of each row to be 5% larger.
void DefectiveMatmul(const MatmulArgs& args, CUstream_st* stream) {
  if (!args.layout->type.quantized()) return kRefTable.matmul(args, stream);
  const auto cols = static_cast<int64_t>(args.layout->cols);
  std::vector<float> x(static_cast<size_t>(args.tokens * cols));
  for (int64_t t = 0; t < args.tokens; ++t) {
    float* row = x.data() + t * cols;
    std::copy_n(args.x + t * args.x_stride, cols, row);
    const int64_t group = std::min(cols, ActivationGroup(args.layout->type));
    for (int64_t k = 0; k < group; ++k) row[k] *= 1.05f;
  }
  MatmulArgs wrong = args;
  wrong.x = x.data();
  wrong.x_stride = cols;
  kRefTable.matmul(wrong, stream);
}

OpTable RefWith(void (*matmul)(const MatmulArgs&, CUstream_st*)) {
  OpTable table = kRefTable;
  table.matmul = matmul;
  return table;
}

// A model and its logits by any table: all tokens of each sequence in one pass, one after another.
class Model {
 public:
  explicit Model(const std::string& path)
      : file_(*SluiceFile::Open(path)),
        description_(*DescribeModel(file_->config())),
        store_(*OpenMappedStore(file_)) {}

  int64_t vocab() const { return file_->config().vocab_size; }

  std::vector<double> Logits(const OpTable& table,
                             const std::vector<std::vector<int32_t>>& sequences) {
    std::vector<double> all;
    for (const std::vector<int32_t>& tokens : sequences) {
      const auto count = static_cast<int64_t>(tokens.size());
      std::unique_ptr<KvCache> cache =
          *KvCache::Create(description_.layer_states, KvType::kF32, count / 16 + 1);
      BlockTable blocks;
      EXPECT_TRUE(cache->Reserve(&blocks, count, 0).ok());
      ThreadTeam team(1);
      std::unique_ptr<Forward> forward = *Forward::Create(
          file_->config(), description_, store_.get(), &table, cache.get(), &team, count, count);
      Batch batch;
      batch.ids = tokens;
      for (int64_t i = 0; i < count; ++i) {
        batch.positions.push_back(static_cast<int32_t>(i));
        batch.slots.push_back(KvCache::Slot(blocks, i));
        batch.lengths.push_back(i + 1);
        batch.block_tables.push_back(blocks.blocks.data());
        batch.wanted.push_back(i);
      }
      std::vector<float> logits(static_cast<size_t>(count * vocab()));
      EXPECT_TRUE(forward->Run(batch, nullptr).ok());
      EXPECT_TRUE(forward->Logits(0, count, logits.data()).ok());
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }

 private:
  std::shared_ptr<const SluiceFile> file_;
  ModelDescription description_;
  std::unique_ptr<WeightStore> store_;
};

// How far from `expected` quantized activations may lead.
double RootMeanSquare(std::span<const double> values) {
  double sum = 0;
  for (double value : values) sum += value * value;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

// How far from `expected` quantized activations may lead.
struct Spread {
  double mean = 0;               // root mean square over all logits and runs
  std::vector<double> of_token;  // over the logits of a token and all runs
  double largest = 0;            // difference of any logit in any run / the spread of its token
};

double LargestRatio(std::span<const double> differences, std::span<const double> of_token) {
  const size_t vocab = differences.size() / of_token.size();
  double largest = 0;
  for (size_t i = 0; i < differences.size(); ++i) {
    const double ratio = std::fabs(differences[i]) / of_token[i / vocab];
    if (!(ratio <= largest)) largest = ratio;  // NaN too
  }
  return largest;
}

std::vector<double> Difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return difference;
}

Spread NoiseSpread(Model& model, const std::vector<std::vector<int32_t>>& sequences,
                   const std::vector<double>& expected) {
  const OpTable noisy = RefWith(NoisyMatmul);
  const auto vocab = static_cast<size_t>(model.vocab());
  std::vector<std::vector<double>> runs;
  Spread spread;
  spread.of_token.resize(expected.size() / vocab);
  for (int run = 0; run < kNoiseRuns; ++run) {
    g_noise_seed = static_cast<uint64_t>(run + 1) * 0x9e3779b97f4a7c15u;
    runs.push_back(Difference(model.Logits(noisy, sequences), expected));
    for (size_t t = 0; t < spread.of_token.size(); ++t) {
      const double rms = RootMeanSquare(std::span(runs.back()).subspan(t * vocab, vocab));
      spread.of_token[t] += rms * rms / kNoiseRuns;
    }
  }
  for (double& token : spread.of_token) token = std::sqrt(token);
  spread.mean = RootMeanSquare(spread.of_token);
  for (const std::vector<double>& run : runs) {
    spread.largest = std::max(spread.largest, LargestRatio(run, spread.of_token));
  }
  return spread;
}

// Of a table's logits from those of ref, in terms of the spread.
struct Distance {
  double mean = 0;
  double largest = 0;
  bool within() const { return mean <= kMeanFactor && largest <= kLargestFactor; }
};

Distance Compare(const std::vector<double>& actual, const std::vector<double>& expected,
                 const Spread& spread) {
  const std::vector<double> difference = Difference(actual, expected);
  return {RootMeanSquare(difference) / spread.mean,
          LargestRatio(difference, spread.of_token) / spread.largest};
}

struct Case {
  std::string model, quantization;
};

class TableAccuracy : public ::testing::TestWithParam<Case> {};

TEST_P(TableAccuracy, LogitsDifferFromThoseOfRefByWhatRoundedActivationsExplain) {
  ScratchDirectory folder;
  const testing::GoldenModel golden = testing::LoadGolden(GetParam().model);
  Model model(testing::ConvertGolden(golden, GetParam().quantization, folder / "model.sluice"));
  const std::vector<double> expected = model.Logits(kRefTable, golden.tokens);
  const Spread spread = NoiseSpread(model, golden.tokens, expected);
  ASSERT_GT(spread.mean, 0);
  for (const OpTable* table : AvailableTables()) {
    if (table == &kRefTable) continue;
    const Distance distance = Compare(model.Logits(*table, golden.tokens), expected, spread);
    EXPECT_TRUE(distance.within())
        << table->name << ": " << distance.mean << " of the spread in the mean, "
        << distance.largest << " at most";
    RecordProperty(std::string(table->name) + "_mean", std::to_string(distance.mean));
    RecordProperty(std::string(table->name) + "_largest", std::to_string(distance.largest));
  }
  const Distance defect =
      Compare(model.Logits(RefWith(DefectiveMatmul), golden.tokens), expected, spread);
  EXPECT_FALSE(defect.within()) << "a wrong scale would not be noticed: " << defect.mean
                                << " in the mean, " << defect.largest << " at most";
}

std::string NameOf(const Case& c) {
  std::string name = c.model + "_" + c.quantization;
  for (char& character : name) {
    if (character == '/' || character == ':') character = '_';
  }
  return name;
}
void PrintTo(const Case& c, std::ostream* out) { *out << NameOf(c); }

std::vector<Case> Cases() {
  std::vector<Case> cases;
  std::vector<const char*> quantizations = {"mixed", "int4:g32", "int4:g64", "int8"};
  if (test::kSanitized) quantizations.resize(1);
  for (const char* model : {"mha", "gqa", "mqa", "bias_linear", "head_dim", "llama3", "yarn"}) {
    for (const char* quantization : quantizations) {
      cases.push_back({model, quantization});
    }
  }
  for (const char* model : {"qwen2", "qwen3", "phi3", "gemma2", "gemma3", "olmo2", "falcon",
                            "falcon_two_norms", "gpt_bigcode", "opt"}) {
    cases.push_back({std::string("architectures/") + model, "int4:g32"});
  }
  for (const char* model : {"gguf/q8_0", "gguf/q4_0", "gguf/q4_1"})
    cases.push_back({model, "keep"});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, TableAccuracy, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace sluice
