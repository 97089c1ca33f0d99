// Rotation frequencies as transformers' modeling_rope_utils computes them. Every operation is one
// float32 operation of that code, in its order, because the angles reach position * frequency and
// an error in the last place grows with the position. There, scalar / tensor is
// reciprocal(tensor) * scalar, and Python's own numbers are float64 until they meet a tensor.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "formats/model_config.h"

namespace sluice {
namespace {

float AsFloat(double value) { return static_cast<float>(value); }

// theta^(2i/dim): the wavelength of pair i in units of 2 pi.
std::vector<float> PositionScales(const RopeConfig& rope, float theta) {
  std::vector<float> scales(static_cast<size_t>(rope.dim) / 2);
  for (size_t i = 0; i < scales.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.dim);
    // Through float64: the nearest float to the power of the float32 operands.
    scales[i] = AsFloat(std::pow(double{theta}, double{exponent}));
  }
  return scales;
}

void ScaleAsLlama3(const RopeConfig& rope, std::vector<float>* frequencies) {
  const float low_wavelength = AsFloat(rope.original_context / rope.low_freq_factor);
  const float high_wavelength = AsFloat(rope.original_context / rope.high_freq_factor);
  const float factor = AsFloat(rope.factor);
  for (float& frequency : *frequencies) {
    const float wavelength = (1.0f / frequency) * AsFloat(2 * std::numbers::pi);
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      frequency = frequency / factor;
      continue;
    }
    const float smooth =
        ((1.0f / wavelength) * AsFloat(rope.original_context) - AsFloat(rope.low_freq_factor)) /
        AsFloat(rope.high_freq_factor - rope.low_freq_factor);
    frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
  }
}

// The dimension whose pair turns `rotations` times over the original context.
double YarnCorrectionDim(const RopeConfig& rope, double rotations) {
  return (static_cast<double>(rope.dim) *
          std::log(rope.original_context / (rotations * 2 * std::numbers::pi))) /
         (2 * std::log(rope.theta));
}

std::vector<float> YarnFrequencies(const RopeConfig& rope) {
  double low = YarnCorrectionDim(rope, rope.beta_fast);
  double high = YarnCorrectionDim(rope, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.dim - 1));
  if (low == high) high += 0.001;

  std::vector<float> frequencies = PositionScales(rope, AsFloat(rope.theta));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = (static_cast<float>(i) - AsFloat(low)) / AsFloat(high - low);
    const float extrapolated_part = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    const float extrapolated = 1.0f / frequencies[i];
    const float interpolated = 1.0f / (AsFloat(rope.factor) * frequencies[i]);
    frequencies[i] = interpolated * (1.0f - extrapolated_part) + extrapolated * extrapolated_part;
  }
  return frequencies;
}

// The base that stretches the longest wavelength to the longer context. Scalars of Python meet a
// tensor here, so each step rounds to float32.
float DynamicTheta(const RopeConfig& rope, int64_t context_tokens) {
  const float length = std::max(static_cast<float>(context_tokens), AsFloat(rope.original_context));
  const float stretch =
      length * AsFloat(rope.factor) / AsFloat(rope.original_context) - AsFloat(rope.factor - 1);
  const auto dim = static_cast<double>(rope.dim);
  const float power = AsFloat(std::pow(double{stretch}, double{AsFloat(dim / (dim - 2))}));
  return power * AsFloat(rope.theta);
}

std::vector<float> LongRopeFrequencies(const RopeConfig& rope, int64_t context_tokens) {
  const bool is_long = static_cast<double>(context_tokens) > rope.original_context;
  const std::vector<float>& divisors = is_long ? rope.long_divisors : rope.short_divisors;
  std::vector<float> frequencies = PositionScales(rope, AsFloat(rope.theta));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = 1.0f / (divisors[i] * frequencies[i]);
  }
  return frequencies;
}

}  // namespace

std::vector<float> RopeFrequencies(const RopeConfig& rope, int64_t context_tokens) {
  if (rope.type == RopeType::kNone) return std::vector<float>(static_cast<size_t>(rope.dim) / 2);
  if (rope.type == RopeType::kYarn) return YarnFrequencies(rope);
  if (rope.type == RopeType::kLongRope) return LongRopeFrequencies(rope, context_tokens);
  const float theta =
      rope.type == RopeType::kDynamic ? DynamicTheta(rope, context_tokens) : AsFloat(rope.theta);
  std::vector<float> frequencies = PositionScales(rope, theta);
  for (float& frequency : frequencies) frequency = 1.0f / frequency;
  if (rope.type == RopeType::kLinear) {
    for (float& frequency : frequencies) frequency /= AsFloat(rope.factor);
  }
  if (rope.type == RopeType::kLlama3) ScaleAsLlama3(rope, &frequencies);
  for (size_t i = 0; i < rope.frequency_divisors.size(); ++i) {
    frequencies[i] /= rope.frequency_divisors[i];
  }
  return frequencies;
}

}  // namespace sluice
