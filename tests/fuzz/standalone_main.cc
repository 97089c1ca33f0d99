// Runs a fuzz target without libFuzzer: each seed of a directory, then mutations of it from a fixed
// sequence, so that every run is the same. Usage: NAME_fuzz DIRECTORY [MUTATIONS_PER_SEED]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

// Values on which arithmetic of sizes goes wrong.
constexpr uint64_t kHostile[] = {0,          1,          0x7f,       0xff,       0xffff,
                                 0x7fffffff, 1ull << 31, 0xffffffff, 1ull << 32, 1ull << 62,
                                 1ull << 63, ~7ull,      ~0ull};

void Mutate(Bytes* bytes, std::mt19937_64* random) {
  const auto below = [random](size_t bound) { return bound == 0 ? 0 : (*random)() % bound; };
  const size_t at = below(bytes->size());
  switch (below(6)) {
    case 0:
      if (!bytes->empty()) (*bytes)[at] ^= static_cast<uint8_t>(1u << below(8));
      return;
    case 1:
      if (!bytes->empty()) (*bytes)[at] = static_cast<uint8_t>((*random)());
      return;
    case 2:
      bytes->resize(at);
      return;
    case 3: {  // a number in 1, 2, 4 or 8 bytes
      const uint64_t value = kHostile[below(std::size(kHostile))];
      const size_t width = std::min(size_t{1} << below(4), bytes->size() - at);
      for (size_t i = 0; i < width; ++i) (*bytes)[at + i] = static_cast<uint8_t>(value >> (8 * i));
      return;
    }
    case 4: {  // a piece once more
      const size_t length = std::min(below(64), bytes->size() - at);
      const Bytes piece(bytes->begin() + at, bytes->begin() + at + length);
      bytes->insert(bytes->begin() + below(bytes->size()), piece.begin(), piece.end());
      return;
    }
    default: {  // a piece less
      const size_t length = std::min(below(64), bytes->size() - at);
      bytes->erase(bytes->begin() + at, bytes->begin() + at + length);
      return;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: %s DIRECTORY [MUTATIONS]\n", argv[0]), 2;
  const long mutations = argc > 2 ? std::atol(argv[2]) : 2000;
  std::vector<std::filesystem::path> seeds;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    seeds.push_back(entry.path());
  }
  std::sort(seeds.begin(), seeds.end());
  size_t runs = 0;
  for (const std::filesystem::path& seed : seeds) {
    std::ifstream file(seed, std::ios::binary);
    const Bytes original{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(original.data(), original.size());
    std::mt19937_64 random(++runs);
    for (long i = 0; i < mutations; ++i, ++runs) {
      Bytes bytes = original;
      for (uint64_t count = 1 + random() % 4; count > 0; --count) Mutate(&bytes, &random);
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
  }
  std::printf("%zu seeds, %zu runs\n", seeds.size(), runs);
  return seeds.empty() ? 1 : 0;
}
