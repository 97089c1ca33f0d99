// Which element of a matrix each lane of a warp holds, in the words of the PTX ISA (9.0, "Matrix
// Fragments for mma.m16n8k8 / k16 / k32" and "ldmatrix"), against the emulation: kernels and
// emulation were written by the same reading, so that a mistake of it would not show in their
// tests. Each case puts the elements of known matrices where the document says, and looks for the
// product where the document says.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "formats/half.h"
#include "kernels/cuda/intrinsics.h"

namespace sluice::cuda_emulation {
namespace {

struct Element {
  int row, col;
};
int GroupId(int laneid) { return laneid >> 2; }
int ThreadIdInGroup(int laneid) { return laneid % 4; }

// Of all shapes here: "row = groupID for ci where i < 2, groupID + 8 for ci where i >= 2;
// col = (threadID_in_group * 2) + (i & 0x1)".
Element OfAccumulator(int laneid, int i) {
  return {i < 2 ? GroupId(laneid) : GroupId(laneid) + 8, ThreadIdInGroup(laneid) * 2 + (i & 1)};
}

// m16n8k32, .u8 and .s8.
Element OfBytesA(int laneid, int i) {
  const bool upper = (0 <= i && i < 4) || (8 <= i && i < 12);
  return {
      upper ? GroupId(laneid) : GroupId(laneid) + 8,
      i < 8 ? ThreadIdInGroup(laneid) * 4 + (i & 3) : ThreadIdInGroup(laneid) * 4 + (i & 3) + 16};
}
Element OfBytesB(int laneid, int i) {
  return {
      i < 4 ? ThreadIdInGroup(laneid) * 4 + (i & 3) : ThreadIdInGroup(laneid) * 4 + (i & 3) + 16,
      GroupId(laneid)};
}

// m16n8k16, .f16.
Element OfHalvesA(int laneid, int i) {
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {
      upper ? GroupId(laneid) : GroupId(laneid) + 8,
      i < 4 ? ThreadIdInGroup(laneid) * 2 + (i & 1) : ThreadIdInGroup(laneid) * 2 + (i & 1) + 8};
}
Element OfHalvesB(int laneid, int i) {
  return {i < 2 ? ThreadIdInGroup(laneid) * 2 + (i & 1) : ThreadIdInGroup(laneid) * 2 + (i & 1) + 8,
          GroupId(laneid)};
}

// m16n8k8, .tf32.
Element OfTf32A(int laneid, int i) {
  return {i == 0 || i == 2 ? GroupId(laneid) : GroupId(laneid) + 8,
          i == 0 || i == 1 ? ThreadIdInGroup(laneid) : ThreadIdInGroup(laneid) + 4};
}
Element OfTf32B(int laneid, int i) {
  return {i == 0 ? ThreadIdInGroup(laneid) : ThreadIdInGroup(laneid) + 4, GroupId(laneid)};
}

// A matrix of small integers, which all of these types hold exactly, and so are sums of products.
class Matrix {
 public:
  Matrix(int rows, int cols, int smallest, int largest, std::mt19937& random)
      : cols_(cols), values_(static_cast<size_t>(rows * cols)) {
    std::uniform_int_distribution<int> value(smallest, largest);
    for (int& v : values_) v = value(random);
  }
  int operator()(Element e) const { return values_[static_cast<size_t>(e.row * cols_ + e.col)]; }

 private:
  int cols_;
  std::vector<int> values_;
};

// By one warp; a kernel's lane cannot capture, so the function is a global one meanwhile.
std::function<void(int lane)> lane_function;
void RunWarp(std::function<void(int lane)> function, size_t shared_bytes = 0) {
  lane_function = std::move(function);
  void (*kernel)(int) = [](int) { lane_function(Lane()); };
  LaunchNamed("fragments", kernel, {1}, kWarpThreads, shared_bytes, nullptr, 0);
}

// What `multiply` makes of the lanes' fragments is c + a b, where the document has it.
template <typename C>
void ExpectProduct(int depth, const Matrix& a, const Matrix& b,
                   const std::function<void(int lane, C (&c)[4])>& multiply) {
  RunWarp([&](int lane) {
    C c[4];
    for (int i = 0; i < 4; ++i) {
      const Element e = OfAccumulator(lane, i);
      c[i] = static_cast<C>(1000 * e.row + e.col);
    }
    multiply(lane, c);
    for (int i = 0; i < 4; ++i) {
      const Element e = OfAccumulator(lane, i);
      int expected = 1000 * e.row + e.col;
      for (int k = 0; k < depth; ++k) expected += a({e.row, k}) * b({k, e.col});
      EXPECT_EQ(c[i], static_cast<C>(expected)) << "row " << e.row << " column " << e.col;
    }
  });
}

TEST(CudaFragments, BytesOfM16N8K32) {
  std::mt19937 random(1);
  const Matrix a(16, 32, 0, 255, random);
  const Matrix b(32, 8, -128, 127, random);
  ExpectProduct<int32_t>(32, a, b, [&](int lane, int32_t(&c)[4]) {
    // "Elements (low to high)": a register's first element is its lowest byte.
    uint32_t a_words[4] = {};
    uint32_t b_words[2] = {};
    for (int i = 0; i < 16; ++i) {
      a_words[i / 4] |= static_cast<uint32_t>(a(OfBytesA(lane, i)) & 0xff) << (i % 4 * 8);
    }
    for (int i = 0; i < 8; ++i) {
      b_words[i / 4] |= static_cast<uint32_t>(b(OfBytesB(lane, i)) & 0xff) << (i % 4 * 8);
    }
    MmaU8S8(c, a_words, b_words[0], b_words[1]);
  });
}

TEST(CudaFragments, HalvesOfM16N8K16) {
  std::mt19937 random(2);
  const Matrix a(16, 16, -100, 100, random);
  const Matrix b(16, 8, -100, 100, random);
  const auto half = [](int value) { return uint32_t{FloatToF16(static_cast<float>(value))}; };
  ExpectProduct<float>(16, a, b, [&](int lane, float(&c)[4]) {
    uint32_t a_words[4] = {};
    uint32_t b_words[2] = {};
    for (int i = 0; i < 8; ++i) a_words[i / 2] |= half(a(OfHalvesA(lane, i))) << (i % 2 * 16);
    for (int i = 0; i < 4; ++i) b_words[i / 2] |= half(b(OfHalvesB(lane, i))) << (i % 2 * 16);
    MmaF16(c, a_words, b_words[0], b_words[1]);
  });
}

TEST(CudaFragments, Tf32OfM16N8K8) {
  std::mt19937 random(3);
  const Matrix a(16, 8, -1000, 1000, random);
  const Matrix b(8, 8, -1000, 1000, random);
  ExpectProduct<float>(8, a, b, [&](int lane, float(&c)[4]) {
    float a_values[4];
    float b_values[2];
    for (int i = 0; i < 4; ++i) a_values[i] = static_cast<float>(a(OfTf32A(lane, i)));
    for (int i = 0; i < 2; ++i) b_values[i] = static_cast<float>(b(OfTf32B(lane, i)));
    MmaTf32(c, a_values, b_values[0], b_values[1]);
  });
}

// "Threads 0-7 / 8-15 / 16-23 / 24-31: addr0-addr7 / addr8-addr15 / ..." are the rows of the four
// matrices; "each thread in a warp holds a fragment of a row, thread 0 holding the first fragment
// in register r": a group of four threads holds a row, 2 elements of 16 bits each. With .trans the
// matrix is loaded in column-major format.
TEST(CudaFragments, FourMatricesOfLdmatrix) {
  for (bool transposed : {false, true}) {
    RunWarp(
        [&](int lane) {
          // The rows of the matrices lie among each other.
          const auto row_of = [](int matrix, int row) { return (matrix * 8 + row) * 5 % 32; };
          auto* shared = SharedMemory<uint16_t>();
          for (int i = lane; i < 32 * 8; i += kWarpThreads) shared[i] = 0;
          SyncWarp();
          const int matrix = lane / 8;
          const int row = lane % 8;
          for (int col = 0; col < 8; ++col) {
            shared[row_of(matrix, row) * 8 + col] =
                static_cast<uint16_t>(matrix * 1000 + row * 10 + col);
          }
          SyncWarp();
          uint32_t registers[4];
          const uint16_t* address = shared + row_of(matrix, row) * 8;
          if (transposed) {
            LoadMatricesTransposed(registers, address);
          } else {
            LoadMatrices(registers, address);
          }
          for (int m = 0; m < 4; ++m) {
            for (int i = 0; i < 2; ++i) {
              const int slow = GroupId(lane);
              const int fast = ThreadIdInGroup(lane) * 2 + i;
              const int expected = m * 1000 + (transposed ? fast * 10 + slow : slow * 10 + fast);
              EXPECT_EQ(static_cast<int>(registers[m] >> (16 * i) & 0xffff), expected);
            }
          }
        },
        32 * 8 * sizeof(uint16_t));
  }
}

// movmatrix: "Each thread in a warp holds a fragment of a row of the input matrix, with thread 0
// holding the first fragment"; the result is its transpose in the same layout.
TEST(CudaFragments, AMatrixThatIsTransposedInRegisters) {
  RunWarp(
      [](int lane) {
        const auto element = [](int row, int col) {
          return static_cast<uint32_t>(row * 256 + col);
        };
        const int row = GroupId(lane);
        const int col = ThreadIdInGroup(lane) * 2;
        const uint32_t after = Transposed(element(row, col) | element(row, col + 1) << 16);
        EXPECT_EQ(after, element(col, row) | element(col + 1, row) << 16);
      },
      0);
}

}  // namespace
}  // namespace sluice::cuda_emulation
