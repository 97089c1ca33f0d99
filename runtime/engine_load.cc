// Where the engine keeps and computes a model: on a GPU that holds all of it, or on the processor.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/select.h"
#include "offload/device_store.h"
#include "offload/system.h"
#include "runtime/cuda_layout.h"
#include "runtime/engine_impl.h"
#include "runtime/engine_options.h"
#include "runtime/planner.h"

namespace sluice {
namespace {

KvType ToKvType(KvCacheType type) {
  return type == KvCacheType::kF32 ? KvType::kF32 : KvType::kF16;
}

int64_t NumBlocks(int64_t context_tokens, int64_t max_sequences) {
  return (context_tokens + kKvBlockTokens - 1) / kKvBlockTokens * max_sequences;
}

// Weights that come to a GPU pass through host memory twice at most: two buffers of a piece.
constexpr uint64_t kUploadBytes = uint64_t{32} << 20;

}  // namespace

Status ValidateGpuOptions(const EngineOptions& options) {
  if (!GpuIsAskedFor(options)) return Status();
  const char* const asked = options.isa == "cuda"                ? "isa cuda"
                            : options.vram_bytes.value_or(0) > 0 ? "a budget of GPU memory"
                                                                 : "prefill in f16";
  const auto against = [&](const std::string& other) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} and {}", asked, other));
  };
  if (options.vram_bytes == 0u) return against("no GPU memory (--vram 0)");
  if (!options.isa.empty() && options.isa != "cuda") return against("isa " + options.isa);
  if (options.prefill == PrefillType::kBf16) {
    return against("prefill in bf16 (--prefill bf16 is for the processor)");
  }
  if (!options.place.empty()) {
    return against("placement rules: a GPU holds all weights (--place is for the processor)");
  }
  if (options.io == WeightIo::kUring || options.io == WeightIo::kPread) {
    return against("a way of reading: weights come to a GPU mapped (--io auto or mmap)");
  }
  return Status();
}

Status EngineImpl::LoadOnBestDevice(const EngineOptions& options, const GpuOpener& open_gpu) {
  const bool stays = options.prefill == PrefillType::kBf16 || !options.place.empty() ||
                     options.io == WeightIo::kUring || options.io == WeightIo::kPread;
  if (GpuIsRefused(options) || (stays && !GpuIsAskedFor(options))) return LoadOnProcessor(options);
  const Status status = LoadOnGpu(options, open_gpu);
  if (status.ok()) return status;
  DropGpu();
  if (GpuIsAskedFor(options) || status.code() == ErrorCode::kCancelled) return status;
  info_.no_gpu_reason = status.message();
  return LoadOnProcessor(options);
}

void EngineImpl::DropGpu() {
  stream_ = DeviceStream();
  forward_.reset();
  kv_cache_.reset();
  store_.reset();
  logits_ = Arena();
  gpu_ = Gpu();
}

Status EngineImpl::LoadOnGpu(const EngineOptions& options, const GpuOpener& open_gpu) {
  Result<Gpu> gpu = open_gpu();
  if (!gpu.ok() && options.prefill == PrefillType::kF16) {
    return gpu.status().WithContext("prefill in f16 is for a GPU");
  }
  if (!gpu.ok()) return gpu.status();
  gpu_ = std::move(*gpu);
  info_.gpu_found = true;
  if (Status s = FindF16LibraryIfWanted(options); !s.ok()) return s;
  Device* device = gpu_.device.get();
  const int64_t num_blocks = NumBlocks(info_.context_tokens, options.max_sequences);
  const KvType kv_type = ToKvType(options.kv_cache_type);
  const Result<GpuMemory> needed =
      GpuMemoryOf(*file_, description_,
                  {kv_type, info_.context_tokens, num_blocks, options.max_batch_tokens,
                   gpu_.f16_library.has_value()});
  if (!needed.ok()) return needed.status();
  if (Status s = CheckVram(options, *needed); !s.ok()) return s;
  if (Status s = CheckRamBesideGpu(options, *needed); !s.ok()) return s;

  Result<DeviceStream> stream = device->CreateStream();
  if (!stream.ok()) return stream.status();
  stream_ = std::move(*stream);
  Result<std::unique_ptr<WeightStore>> mapped = OpenMappedStore(file_);
  if (!mapped.ok()) return mapped.status();
  Result<std::unique_ptr<WeightStore>> store =
      OpenDeviceStore(std::move(*mapped), file_, device, {DeviceKind::kCuda, 0}, CudaLayout(),
                      info_.threads, options.load_progress);
  if (!store.ok()) return store.status();
  store_ = std::move(*store);
  CublasLt* const f16_library = gpu_.f16_library ? &*gpu_.f16_library : nullptr;
  if (Status s = MakeForward(options, {gpu_.ops, device, &stream_, f16_library}); !s.ok()) return s;
  info_.gpu = device->name();
  info_.vram_bytes = device->allocated_bytes() + device->own_bytes();
  return Status();
}

Status EngineImpl::FindF16LibraryIfWanted(const EngineOptions& options) {
  if (options.prefill != PrefillType::kF16) return Status();
  Result<CublasLt> library = CublasLt::Load(gpu_.f16_libraries);
  if (!library.ok()) return library.status().WithContext("prefill in f16");
  info_.f16_library = library->description();
  gpu_.f16_library.emplace(std::move(*library));
  return Status();
}

// Bounds what the device may take from here on.
Status EngineImpl::CheckVram(const EngineOptions& options, const GpuMemory& needed) {
  Device* device = gpu_.device.get();
  const Result<DeviceMemory> memory = device->Memory();
  if (!memory.ok()) return memory.status();
  const uint64_t free_bytes = memory->free_bytes + device->own_bytes();
  const uint64_t allowed = options.vram_bytes.value_or(DefaultVramBudget(free_bytes));
  info_.vram_budget_bytes = std::min(allowed, free_bytes);
  const uint64_t total = needed.TotalBytes(device->unit_bytes(), device->own_bytes());
  if (total > info_.vram_budget_bytes) {
    return Status(
        ErrorCode::kDoesNotFit,
        fmt::format(
            "{}: {} bytes of GPU memory are needed at least (weights {}, KV cache of {} tokens {}, "
            "activations and scratch {},{} {} itself {}), and {} are {}: a model is computed by a "
            "GPU that holds all of it; --vram 0 computes it on the processor",
            file_->path(), total, needed.weight_bytes, info_.context_tokens, needed.kv_cache_bytes,
            needed.activation_bytes + needed.scratch_bytes,
            needed.library_bytes == 0 ? "" : fmt::format(" cuBLASLt {},", needed.library_bytes),
            device->name(), device->own_bytes(), info_.vram_budget_bytes,
            allowed <= free_bytes && options.vram_bytes ? "allowed" : "free"));
  }
  device->set_limit_bytes(info_.vram_budget_bytes);
  return Status();
}

Status EngineImpl::CheckRamBesideGpu(const EngineOptions& options, const GpuMemory& needed) {
  info_.overhead_bytes = OverheadBytes(file_->metadata_size_bytes());
  info_.ram_budget_bytes =
      options.ram_bytes > 0 ? options.ram_bytes : DefaultBudget(AvailableMemoryBytes());
  const uint64_t total = info_.overhead_bytes + needed.staging_bytes + kUploadBytes;
  if (total <= info_.ram_budget_bytes) return Status();
  return Status(
      ErrorCode::kDoesNotFit,
      fmt::format("{}: {} bytes of memory are needed beside the GPU (copies {}, "
                  "tokenizer and the like {}), and {} are {}",
                  file_->path(), total, needed.staging_bytes + kUploadBytes, info_.overhead_bytes,
                  info_.ram_budget_bytes, options.ram_bytes > 0 ? "allowed" : "free"));
}

Status EngineImpl::LoadOnProcessor(const EngineOptions& options) {
  info_.kv_cache_bytes =
      KvCache::BlockBytes(description_.layer_states, ToKvType(options.kv_cache_type)) *
      static_cast<uint64_t>(NumBlocks(info_.context_tokens, options.max_sequences));
  info_.activation_bytes = ActivationBytes(description_, options.max_batch_tokens, info_.vocab_size,
                                           options.prefill == PrefillType::kBf16);
  if (Status s = OpenStore(options); !s.ok()) return s;
  return MakeForward(options, processor_ops_);
}

Status EngineImpl::MakeForward(const EngineOptions& options, const Compute& compute) {
  info_.isa = compute.ops->name;
  info_.prefill = options.prefill;
  if (options.isa.empty() && !compute.ops->on_device) info_.isa_note = FallbackReason();
  Result<std::unique_ptr<KvCache>> kv_cache = KvCache::Create(
      description_.layer_states, ToKvType(options.kv_cache_type),
      NumBlocks(info_.context_tokens, options.max_sequences), compute.device, compute.stream);
  if (!kv_cache.ok()) return kv_cache.status();
  kv_cache_ = std::move(*kv_cache);
  Result<std::unique_ptr<Forward>> forward = Forward::Create(
      file_->config(), description_, store_.get(), compute, kv_cache_.get(), team_.get(),
      options.max_batch_tokens, info_.context_tokens, options.prefill == PrefillType::kBf16);
  if (!forward.ok()) return forward.status();
  forward_ = std::move(*forward);
  forward_->set_trace(trace_.get());
  info_.kv_cache_bytes = kv_cache_->size_bytes();
  info_.activation_bytes = ActivationBytes(description_, options.max_batch_tokens, info_.vocab_size,
                                           options.prefill == PrefillType::kBf16);
  Result<Arena> logits = Arena::AllocateStaging(
      compute.device, static_cast<uint64_t>(kLogitRows * info_.vocab_size) * sizeof(float));
  if (!logits.ok()) return logits.status().WithContext("logits");
  logits_ = std::move(*logits);
  return Status();
}

std::span<float> EngineImpl::logits() const {
  return {reinterpret_cast<float*>(logits_.data()), logits_.size_bytes() / sizeof(float)};
}

// Divides the budget: what the engine needs besides weights, then as many weights as fit.
Status EngineImpl::OpenStore(const EngineOptions& options) {
  info_.overhead_bytes = OverheadBytes(file_->metadata_size_bytes());
  const uint64_t fixed = info_.kv_cache_bytes + info_.activation_bytes + info_.overhead_bytes;
  info_.ram_budget_bytes =
      options.ram_bytes > 0 ? options.ram_bytes : DefaultBudget(AvailableMemoryBytes());
  const std::vector<PlacementGroup> groups = PlacementGroups(*file_);
  const bool mapped = options.io == WeightIo::kMapped;
  const uint64_t smallest = fixed + (mapped ? 0 : SmallestBudget(groups));
  if (smallest > info_.ram_budget_bytes) {
    return Status(
        ErrorCode::kDoesNotFit,
        fmt::format(
            "{}: {} bytes are needed at least, even with weights streaming from disk (KV cache of "
            "{} "
            "tokens {}, activations {}, tokenizer and the like {}, weights {}), and {} are {}",
            file_->path(), smallest, info_.context_tokens, info_.kv_cache_bytes,
            info_.activation_bytes, info_.overhead_bytes, smallest - fixed, info_.ram_budget_bytes,
            options.ram_bytes > 0 ? "allowed" : "free"));
  }
  Result<std::unique_ptr<WeightStore>> store = [&]() -> Result<std::unique_ptr<WeightStore>> {
    if (mapped) return OpenMappedStore(file_);
    Result<std::vector<PlaceRule>> rules = ParsePlaceRules(options.place);
    if (!rules.ok()) return rules.status();
    PlacementOptions placement_options;
    placement_options.budget_bytes = info_.ram_budget_bytes - fixed;
    placement_options.ring_bytes = options.ring_bytes;
    placement_options.rules = *rules;
    Result<Placement> placement = PlaceGroups(groups, placement_options);
    if (!placement.ok()) return placement.status().WithContext(file_->path());
    info_.resident_bytes = placement->resident_bytes;
    info_.streamed_bytes = placement->streamed_bytes;
    info_.ring_bytes = placement->ring_bytes;
    TieredOptions tiered;
    tiered.io = options.io == WeightIo::kUring   ? IoMethod::kUring
                : options.io == WeightIo::kPread ? IoMethod::kPread
                                                 : IoMethod::kAuto;
    tiered.threads = info_.threads;
    tiered.progress = options.load_progress;
    tiered.trace = trace_.get();
    return OpenTieredStore(file_, *placement, tiered);
  }();
  if (!store.ok()) return store.status();
  store_ = std::move(*store);
  info_.io = store_->io_description();
  return Status();
}

}  // namespace sluice
