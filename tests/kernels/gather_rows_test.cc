#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/select.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

TEST(GatherRows, EveryTypeInBothKindsOfTilesIsDequantizedWithinItsRoundings) {
  std::mt19937 random(5);
  for (const WeightType& type : test::AllWeightTypes()) {
    for (uint32_t tile_rows : {1u, 16u}) {
      for (int64_t wanted : {1, 33, 127, 128, 161}) {
        const auto cols = static_cast<uint64_t>(test::ColsFor(type, wanted));
        const test::WeightMatrix matrix = test::RandomMatrix(type, 19, cols, tile_rows, random);
        const std::vector<uint64_t> ids = {18, 0, 7, 7, 16, 15};
        std::vector<const std::byte*> tiles;
        std::vector<uint32_t> rows;
        for (uint64_t id : ids) {
          tiles.push_back(matrix.tiles.data() + id / tile_rows * matrix.layout.tile_bytes);
          rows.push_back(static_cast<uint32_t>(id % tile_rows));
        }
        for (const OpTable* table : AvailableTables()) {
          std::vector<float> out(ids.size() * (cols + 2), -77.0f);
          table->gather_rows(
              {&matrix.layout, tiles.data(), rows.data(), static_cast<int64_t>(ids.size()),
               out.data(), static_cast<int64_t>(cols + 2)},
              nullptr);
          for (size_t i = 0; i < ids.size(); ++i) {
            for (uint64_t k = 0; k < cols; ++k) {
              const test::ExactWeight w = test::WeightAt(matrix, ids[i], k);
              const double bound =
                  type.quantized() ? w.magnitude * std::numeric_limits<float>::epsilon() : 0;
              ASSERT_TRUE(std::fabs(out[i * (cols + 2) + k] - w.value) <= bound)
                  << table->name << " " << WeightTypeName(type) << " " << cols;
            }
            ASSERT_EQ(out[i * (cols + 2) + cols], -77.0f);
            ASSERT_EQ(out[i * (cols + 2) + cols + 1], -77.0f);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace sluice
