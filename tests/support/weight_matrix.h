// Random weights in tiles, together with the codes they were made of.
#ifndef SLUICE_TESTS_SUPPORT_WEIGHT_MATRIX_H_
#define SLUICE_TESTS_SUPPORT_WEIGHT_MATRIX_H_

#include <cstdint>
#include <ostream>
#include <random>
#include <vector>

#include "formats/tile_layout.h"

namespace sluice {

// As in "int4:g32:zero", where a test prints its parameter.
void PrintTo(const WeightType& type, std::ostream* out);

}  // namespace sluice

namespace sluice::test {

// All types that IsValid accepts.
std::vector<WeightType> AllWeightTypes();

// `cols`, or for types with rows of whole super-blocks the next number of columns that they have.
int64_t ColsFor(const WeightType& type, int64_t cols);

struct WeightRow {
  std::vector<uint32_t> values;  // as in RowCodes
  std::vector<uint16_t> scales;
  std::vector<uint16_t> offsets;
  std::vector<uint16_t> super_scales;
  std::vector<uint16_t> super_offsets;

  RowCodes codes() {
    return {values.data(), scales.data(), offsets.data(), super_scales.data(),
            super_offsets.data()};
  }
};

struct WeightMatrix {
  TileLayout layout;
  std::vector<WeightRow> rows;
  std::vector<std::byte> tiles;  // layout.size_bytes, followed by nothing
};

// Integers over their whole range, scales of either sign with zero and subnormal ones among them.
WeightMatrix RandomMatrix(const WeightType& type, uint64_t rows, uint64_t cols, uint32_t tile_rows,
                          std::mt19937& random);

// Scale and minimum (0 if there is none) of a group in float32, where they are exact for every
// type.
struct GroupScale {
  float scale;
  float minimum;
};
GroupScale ScaleOf(const WeightType& type, const WeightRow& codes, size_t group);

// s (q - z), or s q + m, without rounding; and the sum of the magnitudes of the terms.
struct ExactWeight {
  double value;
  double magnitude;
};
ExactWeight WeightAt(const WeightMatrix& matrix, uint64_t row, uint64_t col);

std::vector<float> RandomFloats(size_t count, std::mt19937& random, float scale = 1);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_WEIGHT_MATRIX_H_
