#include "loaders/model_outline.h"

#include <algorithm>
#include <initializer_list>

#include "formats/checked.h"
#include "formats/strict_json.h"
#include "loaders/hf_config.h"
#include "loaders/quantizer.h"
#include "loaders/weight_plan.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kPageBytes = 4096;
constexpr int64_t kLargestSize = int64_t{1} << 31;
// Far above any model, and low enough that sums of its bytes cannot overflow.
constexpr double kMostParameters = 1e15;
// A few bytes of configuration must not ask for gigabytes of catalogue.
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostExperts = 65536;  // of all layers

void AddTensor(GroupKind kind, const WeightType& type, uint64_t parameters, uint64_t size_bytes,
               ModelOutline* outline) {
  const auto is_type = [&type](const OutlineType& known) { return known.type == type; };
  auto known = std::find_if(outline->types.begin(), outline->types.end(), is_type);
  if (known == outline->types.end()) {
    outline->types.push_back({WeightTypeName(type), type});
    known = outline->types.end() - 1;
  }
  known->parameters += parameters;
  known->size_bytes += size_bytes;
  if (kind == GroupKind::kEmbedding) known->embedding_bytes += size_bytes;
  if (kind == GroupKind::kHead) known->head_bytes += size_bytes;
}

void SortTypes(ModelOutline* outline) {
  std::stable_sort(
      outline->types.begin(), outline->types.end(),
      [](const OutlineType& a, const OutlineType& b) { return a.size_bytes > b.size_bytes; });
}

// Sizes of what a conversion would write.
Status AddPlannedGroups(const std::vector<PlannedGroup>& groups, ModelOutline* outline) {
  for (const PlannedGroup& planned : groups) {
    OutlineGroup group;
    group.kind = planned.kind;
    if (planned.layer != kNoIndex) group.layer = planned.layer;
    for (const PlannedTensor& tensor : planned.tensors) {
      Result<TileLayout> layout =
          MakeTileLayout(tensor.type, tensor.rows, tensor.cols, tensor.tile_rows);
      if (!layout.ok()) return layout.status().WithContext(tensor.name);
      const uint64_t size_bytes = RoundUp(layout->size_bytes, kPageBytes);
      if (tensor.tile_rows == 1 && planned.kind != GroupKind::kEmbedding) {
        group.vector_bytes += size_bytes;
      } else {
        group.matrix_bytes += size_bytes;
        group.largest_piece_bytes =
            std::max(group.largest_piece_bytes, std::min(size_bytes, kSluiceMaxPieceBytes));
      }
      AddTensor(planned.kind, tensor.type, tensor.rows * tensor.cols, size_bytes, outline);
    }
    outline->groups.push_back(group);
  }
  SortTypes(outline);
  return Status();
}

void AddConfig(const ModelConfig& config, ModelOutline* outline) {
  outline->architecture = config.architecture;
  outline->num_layers = config.num_layers;
  outline->hidden_size = config.hidden_size;
  outline->vocab_size = config.vocab_size;
  outline->context_length = config.context_length;
}

// The first of several spellings that is there.
Result<int64_t> Size(const Json& json, std::initializer_list<const char*> names, int64_t fallback) {
  for (const char* name : names) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) continue;
    if (!found->is_number_integer() || found->get<int64_t>() <= 0 ||
        found->get<int64_t>() > kLargestSize) {
      return Status(ErrorCode::kCorrupt, std::string(name) + " is not a size");
    }
    return found->get<int64_t>();
  }
  if (fallback > 0) return fallback;
  return Status(ErrorCode::kCorrupt, std::string(*names.begin()) + " is missing");
}

// Widths of a transformer that sluice does not run, as most configurations spell them.
struct Shape {
  int64_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
  int64_t experts, expert_ffn;  // of a layer; 1 expert: none
  bool gated, tied;
};

double Parameters(const Shape& shape) {
  const auto hidden = static_cast<double>(shape.hidden);
  const double attention = 2.0 * static_cast<double>(shape.heads + shape.kv_heads) *
                           static_cast<double>(shape.head_dim) * hidden;
  const double ffn = 3.0 * hidden *
                     (shape.experts > 1 ? static_cast<double>(shape.experts) *
                                              static_cast<double>(shape.expert_ffn)
                                        : static_cast<double>(shape.ffn));
  return static_cast<double>(shape.layers) * (attention + ffn) +
         2.0 * static_cast<double>(shape.vocab) * hidden;
}

Result<Shape> ReadShape(const Json& json) {
  Shape shape = {};
  Status first;
  const auto read = [&](int64_t* value, std::initializer_list<const char*> names,
                        int64_t fallback) {
    Result<int64_t> size = Size(json, names, fallback);
    if (size.ok()) {
      *value = *size;
    } else if (first.ok()) {
      first = size.status();
    }
  };
  read(&shape.layers, {"num_hidden_layers", "n_layer", "num_layers", "n_layers"}, 0);
  read(&shape.hidden, {"hidden_size", "n_embd", "d_model", "dim"}, 0);
  read(&shape.heads, {"num_attention_heads", "n_head", "n_heads"}, 0);
  read(&shape.vocab, {"vocab_size"}, 0);
  if (!first.ok()) return first;
  const bool multi_query = json.value("multi_query", Json(false)) == true;
  read(&shape.kv_heads, {"num_key_value_heads", "num_kv_heads", "n_kv_heads"},
       multi_query ? 1 : shape.heads);
  read(&shape.head_dim, {"head_dim"}, std::max<int64_t>(1, shape.hidden / shape.heads));
  read(&shape.ffn, {"intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"},
       4 * shape.hidden);
  read(&shape.context, {"max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"}, 2048);
  read(&shape.experts, {"num_local_experts", "num_experts", "n_routed_experts"}, 1);
  read(&shape.expert_ffn, {"moe_intermediate_size"}, shape.ffn);
  if (!first.ok()) return first;
  if (shape.layers > kMostLayers || shape.experts > kMostExperts / shape.layers)
    return Status(ErrorCode::kCorrupt, "too many layers or experts");
  if (Parameters(shape) > kMostParameters)
    return Status(ErrorCode::kCorrupt, "more weights than any model has");
  std::string activation;
  for (const char* name : {"hidden_act", "activation_function", "hidden_activation"}) {
    if (json.contains(name) && json[name].is_string()) activation = json[name].get<std::string>();
  }
  shape.gated = activation == "silu" || activation == "swiglu" || shape.experts > 1;
  shape.tied = json.value("tie_word_embeddings", Json(true)) != false;
  return shape;
}

// Its weights: no steps, since nothing runs it.
ModelDescription Weights(const Shape& shape) {
  const auto size = [](int64_t value) { return static_cast<uint64_t>(value); };
  const uint64_t hidden = size(shape.hidden);
  ModelDescription description;
  description.embedding_tensor = "embedding";
  description.head_tensor = shape.tied ? "embedding" : "head";
  if (!shape.tied) {
    description.groups.push_back(
        {GroupKind::kEmbedding,
         -1,
         {{"embedding", size(shape.vocab), hidden, TensorKind::kEmbedding}},
         {}});
  }
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const uint64_t queries = size(shape.heads) * size(shape.head_dim);
    const uint64_t keys = size(shape.kv_heads) * size(shape.head_dim);
    description.groups.push_back({GroupKind::kAttention,
                                  layer,
                                  {{"norm", 1, hidden, TensorKind::kVector},
                                   {"ffn_norm", 1, hidden, TensorKind::kVector},
                                   {"q", queries, hidden, TensorKind::kMatrix},
                                   {"k", keys, hidden, TensorKind::kMatrix},
                                   {"v", keys, hidden, TensorKind::kMatrix},
                                   {"o", hidden, queries, TensorKind::kMatrix}},
                                  {}});
    if (shape.experts > 1) {
      description.groups.back().tensors.push_back(
          {"router", size(shape.experts), hidden, TensorKind::kMatrix});
    }
    for (int64_t expert = 0; expert < shape.experts; ++expert) {
      GroupDescription ffn;
      ffn.kind = shape.experts > 1 ? GroupKind::kExpert : GroupKind::kFfn;
      ffn.layer = layer;
      const uint64_t width = size(shape.experts > 1 ? shape.expert_ffn : shape.ffn);
      if (shape.gated) ffn.tensors.push_back({"gate", width, hidden, TensorKind::kMatrix});
      ffn.tensors.push_back({"up", width, hidden, TensorKind::kMatrix});
      ffn.tensors.push_back({"down", hidden, width, TensorKind::kMatrix});
      description.groups.push_back(std::move(ffn));
    }
    description.layer_states.push_back(
        {.num_kv_heads = shape.kv_heads, .head_dim = shape.head_dim});
  }
  description.groups.push_back(
      {GroupKind::kHead,
       -1,
       {{"norm", 1, hidden, TensorKind::kVector},
        {description.head_tensor, size(shape.vocab), hidden, TensorKind::kMatrix}},
       {}});
  return description;
}

WeightType SixteenBits(const std::string&) { return {WeightKind::kF16, WeightOffset::kNone, 0}; }

}  // namespace

uint64_t ModelOutline::parameters() const {
  uint64_t sum = 0;
  for (const OutlineType& type : types) sum += type.parameters;
  return sum;
}

uint64_t ModelOutline::weight_bytes() const {
  uint64_t sum = 0;
  for (const OutlineType& type : types) sum += type.size_bytes;
  return sum;
}

ModelOutline OutlineFile(const SluiceFile& file) {
  ModelOutline outline;
  AddConfig(file.config(), &outline);
  outline.source = outline.architecture + ", .sluice file";
  outline.metadata_bytes = file.metadata_size_bytes();
  for (const GroupEntry& entry : file.groups()) {
    OutlineGroup group;
    group.kind = entry.kind;
    if (entry.layer != kNoIndex) group.layer = entry.layer;
    for (TensorId id = entry.first_tensor; id < entry.first_tensor + entry.tensor_count; ++id) {
      const TileLayout& layout = file.tensors()[id].layout;
      const bool vector = layout.tile_rows == 1 && entry.kind != GroupKind::kEmbedding;
      uint64_t size_bytes = 0;
      for (const PieceEntry& piece : file.PiecesOf(id)) {
        size_bytes += piece.size_bytes;
        if (!vector)
          group.largest_piece_bytes =
              std::max<uint64_t>(group.largest_piece_bytes, piece.size_bytes);
      }
      (vector ? group.vector_bytes : group.matrix_bytes) += size_bytes;
      AddTensor(entry.kind, layout.type, layout.rows * layout.cols, size_bytes, &outline);
    }
    outline.groups.push_back(group);
  }
  SortTypes(&outline);
  Result<ModelDescription> description = DescribeModel(file.config());
  if (description.ok()) {
    outline.layer_states = description->layer_states;
    outline.description = std::move(*description);
  } else {
    outline.why_not = description.status().message();
  }
  return outline;
}

Result<ModelOutline> OutlineCheckpoint(const Checkpoint& checkpoint, const QuantizationPlan& plan) {
  Result<ModelDescription> description = DescribeModel(checkpoint.config());
  if (!description.ok()) return description.status();
  ModelOutline outline;
  AddConfig(checkpoint.config(), &outline);
  outline.source = checkpoint.description();
  outline.metadata_bytes = checkpoint.tokenizer_json().size() + checkpoint.chat_template().size();
  const std::vector<PlannedGroup> groups =
      PlanWeights(*description, plan,
                  [&](const std::string& name) { return TypeThatKeeps(*checkpoint.Find(name)); });
  if (Status status = AddPlannedGroups(groups, &outline); !status.ok()) return status;
  outline.layer_states = description->layer_states;
  outline.description = std::move(*description);
  return outline;
}

Result<ModelOutline> OutlineConfig(std::string_view config_json, const QuantizationPlan& plan) {
  ModelOutline outline;
  Result<ModelConfig> config = ModelConfigFromHuggingFace(config_json);
  if (config.ok()) {
    Result<ModelDescription> description = DescribeModel(*config);
    if (!description.ok()) return description.status();
    AddConfig(*config, &outline);
    outline.source = config->architecture + ", from config.json";
    const std::vector<PlannedGroup> groups = PlanWeights(*description, plan, SixteenBits);
    if (Status status = AddPlannedGroups(groups, &outline); !status.ok()) return status;
    outline.layer_states = description->layer_states;
    outline.description = std::move(*description);
    return outline;
  }
  if (config.status().code() != ErrorCode::kUnsupported) return config.status();
  Result<Json> json = ParseStrictJson(config_json);
  if (!json.ok()) return json.status();
  Result<Shape> shape = ReadShape(*json);
  if (!shape.ok()) return shape.status();
  outline.why_not = config.status().message();
  outline.architecture =
      json->value("model_type", Json("?")).is_string() ? json->value("model_type", "?") : "?";
  outline.source = outline.architecture + ", sizes estimated from config.json";
  outline.num_layers = shape->layers;
  outline.hidden_size = shape->hidden;
  outline.vocab_size = shape->vocab;
  outline.context_length = shape->context;
  ModelDescription weights = Weights(*shape);
  if (Status status = AddPlannedGroups(PlanWeights(weights, plan, SixteenBits), &outline);
      !status.ok())
    return status;
  outline.layer_states = weights.layer_states;
  return outline;
}

}  // namespace sluice
