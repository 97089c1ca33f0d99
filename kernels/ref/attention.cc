#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/half.h"
#include "kernels/ref/ref.h"
#include "kernels/visible_keys.h"

namespace sluice {
namespace {

float Element(const std::byte* base, int64_t index, KvType type) {
  if (type == KvType::kF32) {
    float value;
    std::memcpy(&value, base + 4 * index, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, base + 2 * index, 2);
  return F16ToFloat(bits);
}

float Rounded(float value) { return Bf16ToFloat(FloatToBf16(value)); }

// ALiBi's part of the score of a key, for a token at the position `own`.
float Bias(const AttentionArgs& args, float slope, int64_t key, int64_t own) {
  if (!args.slopes_in_bf16) return slope * static_cast<float>(key - own);
  return args.scale * (Rounded(slope * Rounded(static_cast<float>(key))) -
                       Rounded(slope * Rounded(static_cast<float>(own))));
}

// One query head; `out` holds the weighted sum of values so far.
void AttendHead(const AttentionArgs& args, int64_t token, int64_t head, int64_t kv_head,
                const float* query, float* out) {
  const KvLayer& layer = args.layer;
  const int64_t dim = layer.head_dim;
  const int64_t half_bytes = kKvBlockTokens * dim * KvTypeBytes(layer.type);
  const VisibleKeys visible = VisibleKeysOf(args, token);
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
  std::fill(out, out + dim, 0.0f);
  for (int64_t begin = visible.begin / kKvBlockTokens * kKvBlockTokens; begin < visible.end;
       begin += kKvBlockTokens) {
    const int64_t block = args.block_tables[token][begin / kKvBlockTokens];
    const std::byte* keys = layer.blocks + block * layer.block_bytes + kv_head * 2 * half_bytes;
    const std::byte* values = keys + half_bytes;
    float scores[kKvBlockTokens];
    const float before = largest;
    for (int64_t j = 0; j < kKvBlockTokens; ++j) {
      if (!Sees(visible, begin + j)) continue;
      float dot = 0;
      for (int64_t i = 0; i < dim; ++i) dot += query[i] * Element(keys, j * dim + i, layer.type);
      scores[j] = args.scale * dot;
      if (args.slopes != nullptr) {
        scores[j] += Bias(args, args.slopes[head], PositionOf(visible, begin + j), visible.own);
      }
      if (args.softcap != 0) scores[j] = args.softcap * std::tanh(scores[j] / args.softcap);
      largest = std::max(largest, scores[j]);
    }
    const float correction = begin <= visible.begin ? 0.0f : std::exp(before - largest);
    sum *= correction;
    for (int64_t i = 0; i < dim; ++i) out[i] *= correction;
    for (int64_t j = 0; j < kKvBlockTokens; ++j) {
      if (!Sees(visible, begin + j)) continue;
      const float weight = std::exp(scores[j] - largest);
      sum += weight;
      for (int64_t i = 0; i < dim; ++i) out[i] += weight * Element(values, j * dim + i, layer.type);
    }
  }
  for (int64_t i = 0; i < dim; ++i) out[i] /= sum;
}

}  // namespace

void AttentionRef(const AttentionArgs& args, CUstream_st*) {
  const int64_t dim = args.layer.head_dim;
  const int64_t group = args.num_heads / args.layer.num_kv_heads;  // query heads of one KV head
  for (int64_t item = args.item_begin; item < args.item_end; ++item) {
    const int64_t token = item / args.layer.num_kv_heads;
    const int64_t kv_head = item % args.layer.num_kv_heads;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      AttendHead(args, token, head, kv_head, args.query + token * args.query_stride + head * dim,
                 args.out + token * args.out_stride + head * dim);
    }
  }
}

}  // namespace sluice
