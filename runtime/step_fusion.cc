#include "runtime/step_fusion.h"

#include <algorithm>
#include <vector>

namespace sluice {
namespace {

template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

bool Reads(const Step& step, Buffer buffer) {
  return std::visit(
      Overloaded{
          [&](const RmsNormStep& s) { return s.in == buffer || (s.add_to_out && s.out == buffer); },
          [&](const LayerNormStep& s) { return s.in == buffer; },
          [&](const LinearStep& s) { return s.in == buffer || (s.add_to_out && s.out == buffer); },
          [&](const RopeStep& s) { return s.data == buffer; },
          [&](const AttentionStep& s) {
            return s.query == buffer || s.key == buffer || s.value == buffer;
          },
          [&](const ActivationStep& s) { return s.gate == buffer || s.up == buffer; }},
      step);
}

}  // namespace

Buffer ResultOf(const Step& step) {
  return std::visit(
      Overloaded{[](const RopeStep& s) { return s.data; }, [](const auto& s) { return s.out; }},
      step);
}

size_t LinearsOfOneInput(std::span<const Step> steps, size_t first) {
  const auto* linear = std::get_if<LinearStep>(&steps[first]);
  if (linear == nullptr) return 0;
  std::vector<Buffer> taken = {linear->in};
  size_t count = 0;
  for (const Step& step : steps.subspan(first)) {
    const auto* other = std::get_if<LinearStep>(&step);
    if (other == nullptr || other->in != linear->in) break;
    if (std::find(taken.begin(), taken.end(), other->out) != taken.end()) break;
    taken.push_back(other->out);
    ++count;
  }
  return count;
}

bool RotatesForAttention(std::span<const Step> steps, size_t first) {
  if (steps.size() - first < 3) return false;
  const auto* query = std::get_if<RopeStep>(&steps[first]);
  const auto* key = std::get_if<RopeStep>(&steps[first + 1]);
  const auto* attention = std::get_if<AttentionStep>(&steps[first + 2]);
  return query != nullptr && key != nullptr && attention != nullptr &&
         query->data == attention->query && key->data == attention->key &&
         query->heads == attention->num_heads && key->heads == attention->num_kv_heads &&
         query->head_dim == attention->head_dim && key->head_dim == attention->head_dim;
}

std::optional<TensorIndex> MatrixAfter(std::span<const Step> steps, size_t writer) {
  const Buffer result = ResultOf(steps[writer]);
  for (const Step& step : steps.subspan(writer + 1)) {
    const auto* linear = std::get_if<LinearStep>(&step);
    if (linear != nullptr && linear->in == result) return linear->weight;
    if (Reads(step, result) || ResultOf(step) == result) return std::nullopt;
  }
  return kNoTensor;
}

}  // namespace sluice
