#include <cmath>

#include "formats/model_config.h"

namespace sluice {

std::vector<float> AlibiSlopes(int64_t num_heads, double bias_max) {
  int64_t power = 1;
  while (power * 2 <= num_heads) power *= 2;
  std::vector<float> slopes;
  const auto add = [&](int64_t i, int64_t heads) {
    const double exponent = -bias_max * static_cast<double>(i) / static_cast<double>(heads);
    slopes.push_back(static_cast<float>(std::exp2(exponent)));
  };
  for (int64_t i = 1; i <= power; ++i) add(i, power);
  for (int64_t i = 1; static_cast<int64_t>(slopes.size()) < num_heads; i += 2) add(i, 2 * power);
  return slopes;
}

}  // namespace sluice
