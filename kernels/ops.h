// The closed list of operations. A table (OpTable) has one function for each; `ref` is the
// definition, the others are faster and are tested against it (tests/kernels).
//
// All functions: raw pointers in, raw pointers out; they allocate nothing, block on nothing, fail
// on nothing (shapes are the caller's duty), and may run on any thread. Those of CPU tables compute
// exactly the range they are given, so that the caller can divide an operation among threads; the
// result of an element never depends on the division. Matrices are row-major, strides are in
// elements, and activations are float32. Numeric contract: kernels/README.md.
#ifndef SLUICE_KERNELS_OPS_H_
#define SLUICE_KERNELS_OPS_H_

#include <cstddef>
#include <cstdint>

#include "formats/activation.h"
#include "formats/tile_layout.h"

struct CUstream_st;  // CUDA's stream; null for CPU tables

namespace sluice {

inline constexpr int64_t kKvBlockTokens = 16;

// Keys of a context that a CPU table's attention takes by themselves, by their index, before it
// puts the results together; and the largest head for which it can be asked for one such part.
inline constexpr int64_t kAttentionSplitKeys = 512;
inline constexpr int64_t kLargestSplitDim = 1024;

// Nodes that the draft tree of a sequence has at most.
inline constexpr int64_t kMostTreeNodes = 64;

// Floats of a head's result for one split: its sums, padded to 16, the sum of weights, the largest
// score, and padding.
inline int64_t AttentionPartialFloats(int64_t head_dim) { return (head_dim + 15) / 16 * 16 + 16; }

// Activations in int8, made once for all matrices that read them (kernels/README.md):
// per token and group of channels a scale (largest magnitude / 127) and the sum of the integers.
struct QuantizedActivations {
  int8_t* values;       // [tokens, padded_cols], zero beyond cols
  float* scales;        // [tokens, groups]
  int32_t* sums;        // [tokens, groups]
  int64_t group_size;   // 16, 32, 64 or 128
  int64_t groups;       // ceil(cols rounded up to 32 / group_size)
  int64_t padded_cols;  // a multiple of 32: cols rounded up to 32, or more
};

// Channels per activation group that go with a weight type: its own group, or 128 for whole rows.
inline int64_t ActivationGroup(const WeightType& type) {
  return type.group_size == 0 ? 128 : type.group_size;
}

// Activations rounded to bf16, in the order in which AMX's registers and vdpbf16ps take them:
// [ceil(tokens / 16)][padded_cols / 32][16 tokens][32 channels], zero beyond cols and beyond the
// last token.
struct Bf16Activations {
  uint16_t* values;
  int64_t padded_cols;  // a multiple of 32
};
inline constexpr int64_t kBf16Tokens = 16;
inline constexpr int64_t kBf16Channels = 32;

struct RoundBf16Args {
  const float* x;  // [tokens, cols]
  int64_t x_stride;
  int64_t cols;
  int64_t tokens;  // of all ranges together; that of the last one writes the zeros beyond it
  Bf16Activations out;
  int64_t token_begin, token_end;
};

// Activations rounded to f16 (--prefill f16), each token times a power of two that brings its
// largest magnitude into f16's range: values = f16(x 2^-exponent). The exponent is 0 for magnitudes
// that need none (kernels/cuda/panel.cu), and where one is not finite.
struct F16Activations {
  uint16_t* values;     // [tokens, padded_cols], zero beyond cols
  int32_t* exponents;   // [tokens]
  int64_t padded_cols;  // PaddedF16Cols(cols)
};
inline constexpr int64_t kF16Channels = 32;
inline int64_t PaddedF16Cols(int64_t cols) {
  return (cols + kF16Channels - 1) / kF16Channels * kF16Channels;
}

struct RoundF16Args {
  const float* x;  // [tokens, cols]
  int64_t x_stride;
  int64_t cols;
  F16Activations out;
  int64_t token_begin, token_end;
};

// out[r, k] = f16 of weight k of row r, as DequantizeRow gives it; zero beyond the matrix.
struct UnpackF16Args {
  const TileLayout* layout;
  const std::byte* tiles;  // num_tiles, in the layout of the table's products
  int64_t num_tiles;
  uint16_t* out;  // [16 num_tiles, PaddedF16Cols(cols)]
};

// y[t, r] = (y[t, r] + bias[r]) 2^exponents[t], or 2^-exponents[t] if `down`; without keep_y as if
// y had been 0.
struct ShiftRowsArgs {
  float* y;  // [tokens, y_stride]
  int64_t y_stride;
  int64_t rows;
  const float* bias;         // [rows] or null
  const int32_t* exponents;  // [tokens]
  bool down;
  bool keep_y;
  int64_t token_begin, token_end;
};

struct QuantizeArgs {
  const float* x;  // [tokens, cols]
  int64_t x_stride;
  int64_t cols;
  QuantizedActivations out;
  int64_t token_begin, token_end;
};

// y[t, r] = sum over k of w[r, k] x[t, k]  (+ bias[r]); added to y if add_to_y.
// Rows are those of the tiles given: tile i holds rows [16 i, 16 i + 16) of this call's range.
struct MatmulArgs {
  const TileLayout* layout;
  const std::byte* tiles;  // num_tiles tiles, layout->tile_bytes apart
  int64_t num_tiles;
  int64_t rows;  // <= 16 num_tiles; the last tile may have rows that are not written
  // Of these two, the one that the table's `activations(type)` asks for.
  const float* x;  // [tokens, cols]
  int64_t x_stride;
  const QuantizedActivations* xq;
  int64_t tokens;
  const float* bias;  // [rows] or null
  bool add_to_y;
  float* y;  // [tokens, y_stride]; column 0 is the first row of this range
  int64_t y_stride;
  // The range of 128-channel blocks that is summed; the whole row is [0, layout->num_blocks()).
  // Float kinds: the same in channels / 128, rounded up.
  int64_t block_begin, block_end;
  const Bf16Activations* x_bf16 = nullptr;  // matmul_bf16 takes these, and neither x nor xq
};

// Matrices that matmul_several takes at most.
inline constexpr int64_t kMostMatmuls = 4;

// out[i] = row ids[i] of a matrix, dequantized. `tiles` is the whole tensor.
struct GatherRowsArgs {
  const TileLayout* layout;
  const std::byte* const* row_tiles;  // [count]: the tile that holds the row
  const uint32_t* rows_in_tile;       // [count]
  int64_t count;
  float* out;  // [count, out_stride]
  int64_t out_stride;
};

// y = x / sqrt(mean of x^2 + eps) * weight; added to y if add_to_y.
struct RmsNormArgs {
  const float* x;
  int64_t x_stride;
  const float* weight;  // [width]
  int64_t width;
  float eps;
  bool add_to_y;
  float* y;  // may be x, unless add_to_y
  int64_t y_stride;
  int64_t token_begin, token_end;
  // Not null, for tables that quantize_results: y in int8 too, as `quantize` would give it.
  const QuantizedActivations* quantized = nullptr;
};

// y = (x - mean) / sqrt(variance + eps) * weight + bias  (Ba et al., 2016).
struct LayerNormArgs {
  const float* x;
  int64_t x_stride;
  const float* weight;  // [width]
  const float* bias;    // [width] or null
  int64_t width;
  float eps;
  float* y;  // may be x
  int64_t y_stride;
  int64_t token_begin, token_end;
  // Not null, for tables that quantize_results: y in int8 too, as `quantize` would give it.
  const QuantizedActivations* quantized = nullptr;
};

// y = scale y + x; without x: y = scale y.
struct ScaleAddArgs {
  float* y;
  int64_t y_stride;
  float scale;
  const float* x;  // or null
  int64_t x_stride;
  int64_t width;
  int64_t token_begin, token_end;
};

// x = cap tanh(x / cap), elements [begin, end) (Gemma 2, 2024).
struct SoftcapArgs {
  float* x;
  float cap;
  int64_t begin, end;
};

// Rotates pairs (i, i + dim/2) of each head by position * frequencies[i]; elements from dim on
// stay.
struct RopeArgs {
  float* x;  // [tokens, heads * head_dim]
  int64_t x_stride;
  const int32_t* positions;  // [tokens]
  const float* frequencies;  // [dim / 2]
  float magnitude;           // multiplies cos and sin (YaRN's attention factor)
  int64_t heads, head_dim, dim;
  int64_t token_begin, token_end;
};

enum class KvType : uint8_t { kF32, kF16 };

inline int64_t KvTypeBytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// One layer's share of the paged cache. A block holds kKvBlockTokens slots:
// [kv_heads][K: slots x head_dim, then V: slots x head_dim].
struct KvLayer {
  std::byte* blocks;  // block b begins at b * block_bytes
  int64_t block_bytes;
  KvType type;
  int64_t num_kv_heads, head_dim;
};

// Writes K and V of each token into its slot.
struct StoreKvArgs {
  const float* key;  // [tokens, num_kv_heads * head_dim]
  const float* value;
  int64_t stride;
  KvLayer layer;
  const int64_t* slots;  // [tokens]: block id * kKvBlockTokens + position in the block
  int64_t token_begin, token_end;
};

// store_kv of keys that are rotated before, as the queries are, and normalized by rms_norm before
// that, each head by itself, where a weight is given. key.x is store.key, whose rows stay as they
// are: what becomes of them goes to the cache alone.
struct RotateStoreArgs {
  RopeArgs query;
  RopeArgs key;
  StoreKvArgs store;
  const float* query_norm;  // [head_dim] or null
  const float* key_norm;    // [head_dim] or null
  float norm_eps;
};

// out = softmax(scale q k^T) v, online (Milakov and Gimelshein, 2018; Dao et al., 2022), over the
// first lengths[t] slots of the token's block table, or the last `window` of those (sliding window;
// Beltagy et al., 2020). Keys are taken in partitions of 16 by their index, so the result does not
// depend on how a context was filled. Query head h reads KV head h / (num_heads / num_kv_heads).
// A soft cap c turns each scaled score s into c tanh(s / c) (Gemma 2, 2024).
// With slopes, slopes[h] (j - i) is added to the scaled score of key j, before a cap, for the token
// at i = length - 1 (ALiBi: Press et al., 2022).
struct AttentionArgs {
  const float* query;  // [tokens, num_heads * head_dim]
  int64_t query_stride;
  int64_t num_heads;
  KvLayer layer;
  const uint32_t* const* block_tables;  // [tokens]: the block ids of the token's sequence
  const int64_t* lengths;               // [tokens], >= 1
  int64_t window;                       // 0: all
  float scale;
  float softcap;  // 0: none
  float* out;     // [tokens, num_heads * head_dim]
  int64_t out_stride;
  // Items are (token, KV head) pairs, token-major: item = token * num_kv_heads + kv_head.
  int64_t item_begin, item_end;
  // For CPU tables with a `combine_attention`, heads up to kLargestSplitDim. Not null: `attention`
  // takes items (split * tokens + token) * num_kv_heads + kv_head, which are the keys whose index
  // is in split * kAttentionSplitKeys and as many more, and writes to `partials` alone: [splits,
  // tokens, num_heads, AttentionPartialFloats(head_dim)], 64-byte aligned. `combine_attention` then
  // makes `out` of them, with items as above. The same bits as without.
  float* partials = nullptr;
  int64_t tokens = 0;
  // For tables of a device, which cannot look at `lengths` before they start work; CPU tables read
  // none of it. The longest length; the most tokens in a row that share a block table; memory for
  // partial results (kernels/cuda/support.h says how much, and what it holds) and its elements.
  int64_t longest_length = 0;
  int64_t longest_run = 0;
  float* scratch = nullptr;
  int64_t scratch_size = 0;
  const float* slopes = nullptr;  // [num_heads]; null: none
  // Falcon's arithmetic: scale (b(slope b(j)) - b(slope b(i))) is added, b rounds to bfloat16.
  bool slopes_in_bf16 = false;
  // Trees of drafts that are verified in one pass (SpecInfer: Miao et al., 2024); [tokens], or both
  // null where no token of the call is in one. Slot tree_begin[t] + i, i < kMostTreeNodes, holds
  // node i of the tree of token t's sequence, and t sees it iff bit i of ancestors[t] is set: those
  // of its ancestors, and its own. Parents come before their children, so its own is the highest:
  // lengths[t] = tree_begin[t] + that bit + 1. Slots before tree_begin[t] are what all nodes
  // follow. A token of a sequence without a tree has tree_begin[t] = lengths[t] and ancestors[t] =
  // 0.
  //
  // Siblings share a position, not a slot. To t, node i stands at position tree_begin[t] + the
  // number of t's ancestors before i, and `window` and `slopes` count positions, t's own among
  // them.
  //
  // A token whose ancestors are all nodes before it gets the bits that it would get without a tree.
  // Another one's differ, by rounding, from those of its path in consecutive slots: partitions and
  // splits are those of the slots, and there some of its keys lie in other places of theirs. What
  // it does not see contributes nothing, so its bits depend on no node beside its path.
  const int64_t* tree_begin = nullptr;
  const uint64_t* ancestors = nullptr;
};

// out = activation(gate) * up; without up: activation(gate)  (Shazeer, 2020).
struct ActivateArgs {
  Activation activation;
  const float* gate;
  const float* up;  // or null
  int64_t stride;
  int64_t width;
  float* out;  // may be gate
  int64_t out_stride;
  int64_t token_begin, token_end;
  // Not null, for tables that quantize_results: out in int8 too, as `quantize` would give it.
  const QuantizedActivations* quantized = nullptr;
};

inline constexpr int64_t kMostTopK = 256;

// For each row the `count` largest values, largest first, equal ones by ascending index, so that
// whole logits need not leave a device. A NaN counts as larger than all else, so that it cannot
// pass unseen. With count 1: the greedy choice.
// REQUIRES: 1 <= count <= min(width, kMostTopK), width < 2^31.
struct TopKArgs {
  const float* x;  // [rows, width]
  int64_t x_stride;
  int64_t rows;
  int64_t width;
  int64_t count;
  float* values;       // [rows, count]
  int32_t* indices;    // [rows, count]
  float* weight_sums;  // [rows]: the sum of exp(x - the row's largest value) over the row
};

enum class ActivationForm : uint8_t { kFloat, kQuantized };

struct OpTable {
  const char* name;  // "ref", "avx2", ...
  ActivationForm (*activations)(const WeightType& type);
  void (*quantize)(const QuantizeArgs&, CUstream_st*);
  void (*matmul)(const MatmulArgs&, CUstream_st*);
  void (*gather_rows)(const GatherRowsArgs&, CUstream_st*);
  void (*rms_norm)(const RmsNormArgs&, CUstream_st*);
  void (*layer_norm)(const LayerNormArgs&, CUstream_st*);
  void (*scale_add)(const ScaleAddArgs&, CUstream_st*);
  void (*rope)(const RopeArgs&, CUstream_st*);
  void (*store_kv)(const StoreKvArgs&, CUstream_st*);
  void (*attention)(const AttentionArgs&, CUstream_st*);
  // Null: contexts are not divided.
  void (*combine_attention)(const AttentionArgs&, CUstream_st*) = nullptr;
  void (*activate)(const ActivateArgs&, CUstream_st*);
  void (*softcap)(const SoftcapArgs&, CUstream_st*);
  // Tables of a device alone; null elsewhere, where logits are at hand.
  void (*top_k)(const TopKArgs&, CUstream_st*) = nullptr;
  // Tables of a device alone: `count` products, at most kMostMatmuls, as so many calls of `matmul`
  // give them to the bit, with fewer starts of a kernel where matrices of one type read the same
  // activations. None may read what another one writes.
  void (*matmul_several)(const MatmulArgs* args, int64_t count, CUstream_st*) = nullptr;
  // The operations divide themselves among the threads of a device: they are called once for all
  // tokens or tiles, and matrices lie in a layout of their own (kernels/cuda/gpu_layout.h).
  bool on_device = false;
  // Norms and activations take `quantized`.
  bool quantizes_results = false;
  // Null: rms_norm, rope and store_kv are called one by one.
  void (*rotate_store)(const RotateStoreArgs&, CUstream_st*) = nullptr;
  // Products of weights and activations that are both rounded to bf16, of every weight type, with
  // float32 sums (--prefill bf16). Null where the table has none; not every processor that runs the
  // table runs these (CheckBf16 in select.h).
  void (*round_bf16)(const RoundBf16Args&, CUstream_st*) = nullptr;
  void (*matmul_bf16)(const MatmulArgs&, CUstream_st*) = nullptr;
  // What products in f16 by a library need beside it (--prefill f16; kernels/cuda/f16_products.h):
  // tables of a device alone.
  void (*round_f16)(const RoundF16Args&, CUstream_st*) = nullptr;
  void (*unpack_f16)(const UnpackF16Args&, CUstream_st*) = nullptr;
  void (*shift_rows)(const ShiftRowsArgs&, CUstream_st*) = nullptr;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_OPS_H_
