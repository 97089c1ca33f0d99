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

std::optional<PreparedAttention> PreparedAttentionAt(std::span<const Step> steps, size_t first) {
  PreparedAttention found;
  size_t at = first;
  const auto next = [&]<typename T>(const T** step) {
    *step = at < steps.size() ? std::get_if<T>(&steps[at]) : nullptr;
    if (*step != nullptr) ++at;
  };
  next(&found.query_norm);
  next(&found.key_norm);
  next(&found.query);
  next(&found.key);
  next(&found.attention);
  if (found.query == nullptr || found.key == nullptr || found.attention == nullptr) return {};
  const auto rotates = [&](const RopeStep& rope, Buffer data, int64_t heads) {
    return rope.data == data && rope.heads == heads && rope.head_dim == found.attention->head_dim;
  };
  if (!rotates(*found.query, found.attention->query, found.attention->num_heads) ||
      !rotates(*found.key, found.attention->key, found.attention->num_kv_heads)) {
    return {};
  }
  const auto normalizes = [](const RmsNormStep& norm, const RopeStep& rope) {
    return norm.in == rope.data && norm.out == rope.data && norm.heads == rope.heads &&
           !norm.add_to_out;
  };
  if (found.query_norm != nullptr &&
      (found.key_norm == nullptr || !normalizes(*found.query_norm, *found.query) ||
       !normalizes(*found.key_norm, *found.key) || found.query_norm->eps != found.key_norm->eps)) {
    return {};
  }
  found.count = at - first;
  return found;
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
