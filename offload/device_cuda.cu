// The CUDA implementation of device.h, over the CUDA runtime, which is linked statically and loads
// the driver when it is first called: a program starts where there is none.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>

#include "offload/device.h"
#include "offload/gpu_probe.h"

namespace sluice {
namespace {

constexpr int kOldestMajor = 8;  // compute capability 8.0, Ampere

Status ToStatus(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return Status();
  cudaGetLastError();  // errors that do not last are not reported twice
  const ErrorCode code =
      error == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kIo;
  return Status(code, what + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

cudaMemcpyKind Kind(CopyDirection direction) {
  switch (direction) {
    case CopyDirection::kHostToDevice:
      return cudaMemcpyHostToDevice;
    case CopyDirection::kDeviceToHost:
      return cudaMemcpyDeviceToHost;
    case CopyDirection::kDeviceToDevice:
      return cudaMemcpyDeviceToDevice;
  }
  return cudaMemcpyDefault;
}

class CudaDevice final : public Device {
 public:
  CudaDevice(int index, std::string name) : index_(index), name_(std::move(name)) {}

  std::string name() const override { return name_; }
  uint64_t own_bytes() const override { return own_bytes_; }
  uint64_t unit_bytes() const override { return kAllocationBytes; }

  // Makes the context, and counts what that and the kernels take.
  Status Open(const std::string& pci_address, Status (*load_kernels)()) {
    const std::optional<uint64_t> free_before = FreeGpuBytes(pci_address.c_str());
    if (Status s = Memory().status(); !s.ok()) return s;
    if (load_kernels != nullptr) {
      if (Status s = load_kernels(); !s.ok()) return s.WithContext(name_);
    }
    const Result<DeviceMemory> memory = Memory();
    if (!memory.ok()) return memory.status();
    const std::optional<uint64_t> free_after = FreeGpuBytes(pci_address.c_str());
    own_bytes_ = free_before && free_after ? *free_before - std::min(*free_before, *free_after)
                                           : memory->total_bytes - memory->free_bytes;
    return Status();
  }

  Result<DeviceMemory> Memory() override {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    Status status = Call([&] { return cudaMemGetInfo(&free_bytes, &total_bytes); }, "free memory");
    if (!status.ok()) return status;
    return DeviceMemory{free_bytes, total_bytes};
  }

 protected:
  Result<std::byte*> AllocateBytes(uint64_t size_bytes, MemorySpace space) override {
    void* data = nullptr;
    Status status = Call(
        [&] {
          return space == MemorySpace::kDevice
                     ? cudaMalloc(&data, size_bytes)
                     : cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable);
        },
        std::to_string(size_bytes) +
            (space == MemorySpace::kDevice ? " bytes of its memory" : " bytes of pinned memory"));
    if (!status.ok()) return status;
    return static_cast<std::byte*>(data);
  }

  void FreeBytes(std::byte* data, uint64_t, MemorySpace space) override {
    // A lost device frees all by itself, and there is nobody to tell.
    (void)Call([&] { return space == MemorySpace::kDevice ? cudaFree(data) : cudaFreeHost(data); },
               "");
  }

  Result<CUstream_st*> MakeStream() override {
    cudaStream_t stream = nullptr;
    Status status =
        Call([&] { return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }, "a stream");
    if (!status.ok()) return status;
    return stream;
  }

  void EndStream(CUstream_st* stream) override {
    (void)Call([&] { return cudaStreamSynchronize(stream); }, "");
    (void)Call([&] { return cudaStreamDestroy(stream); }, "");
  }

  Result<CUevent_st*> MakeEvent() override {
    cudaEvent_t event = nullptr;
    Status status = Call([&] { return cudaEventCreate(&event); }, "an event");
    if (!status.ok()) return status;
    return event;
  }

  void EndEvent(CUevent_st* event) override {
    (void)Call([&] { return cudaEventDestroy(event); }, "");
  }

  Status Copy(CUstream_st* stream, void* to, const void* from, uint64_t size_bytes,
              CopyDirection direction) override {
    return Call([&] { return cudaMemcpyAsync(to, from, size_bytes, Kind(direction), stream); },
                "a copy of " + std::to_string(size_bytes) + " bytes");
  }

  Status CopyRows(CUstream_st* stream, void* to, const void* from, uint64_t pitch_bytes,
                  uint64_t row_bytes, uint64_t rows) override {
    return Call(
        [&] {
          return cudaMemcpy2DAsync(to, pitch_bytes, from, pitch_bytes, row_bytes, rows,
                                   cudaMemcpyDeviceToDevice, stream);
        },
        "a copy of " + std::to_string(rows) + " rows");
  }

  Status Fill(CUstream_st* stream, void* to, uint8_t value, uint64_t size_bytes) override {
    return Call([&] { return cudaMemsetAsync(to, value, size_bytes, stream); },
                "filling " + std::to_string(size_bytes) + " bytes");
  }

  Status Record(CUstream_st* stream, CUevent_st* event) override {
    return Call([&] { return cudaEventRecord(event, stream); }, "an event");
  }

  Status Wait(CUstream_st* stream, CUevent_st* event) override {
    return Call([&] { return cudaStreamWaitEvent(stream, event, 0); }, "waiting for an event");
  }

  Status Synchronize(CUstream_st* stream) override {
    // A kernel that could not start left its error here.
    if (Status s = Call([] { return cudaGetLastError(); }, "starting a kernel"); !s.ok()) return s;
    return Call([&] { return cudaStreamSynchronize(stream); }, "the work of a stream");
  }

  Result<bool> Done(CUevent_st* event) override {
    bool done = true;
    Status status = Call(
        [&] {
          const cudaError_t error = cudaEventQuery(event);
          done = error != cudaErrorNotReady;
          return done ? error : cudaSuccess;
        },
        "the work before an event");
    if (!status.ok()) return status;
    return done;
  }

  Status Synchronize(CUevent_st* event) override {
    return Call([&] { return cudaEventSynchronize(event); }, "the work before an event");
  }

  Result<double> SecondsBetween(CUevent_st* earlier, CUevent_st* later) override {
    float milliseconds = 0;
    Status status =
        Call([&] { return cudaEventElapsedTime(&milliseconds, earlier, later); }, "a time");
    if (!status.ok()) return status;
    return double{milliseconds} / 1000;
  }

  // Relaxed: what other threads do meanwhile is of no concern to the recording.
  Status BeginCapture(CUstream_st* stream) override {
    return Call([&] { return cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed); },
                "recording");
  }

  Result<CUgraphExec_st*> EndCapture(CUstream_st* stream) override {
    // A kernel that could not be recorded left its error here.
    const cudaError_t recorded = cudaGetLastError();
    cudaGraph_t graph = nullptr;
    const Status ended =
        Call([&] { return cudaStreamEndCapture(stream, &graph); }, "the end of a recording");
    if (!ended.ok()) return ended;
    cudaGraphExec_t ready = nullptr;
    const Status made = recorded == cudaSuccess
                            ? MakeReady(stream, graph, &ready)
                            : Call([&] { return recorded; }, "recording a kernel");
    (void)Call([&] { return cudaGraphDestroy(graph); }, "");
    if (made.ok()) return ready;
    if (ready != nullptr) EndGraph(ready);
    return made;
  }

  void EndGraph(CUgraphExec_st* graph) override {
    (void)Call([&] { return cudaGraphExecDestroy(graph); }, "");
  }

  Status Launch(CUstream_st* stream, CUgraphExec_st* graph) override {
    return Call([&] { return cudaGraphLaunch(graph, stream); }, "starting a recording");
  }

 private:
  // It takes its memory now, and not when it is first started.
  Status MakeReady(CUstream_st* stream, cudaGraph_t graph, cudaGraphExec_t* ready) {
    if (Status s = Call([&] { return cudaGraphInstantiate(ready, graph, 0); }, "a recording");
        !s.ok()) {
      return s;
    }
    return Call([&] { return cudaGraphUpload(*ready, stream); }, "sending a recording");
  }

  // The current device is the calling thread's, so each call says which one it means.
  template <typename Function>
  Status Call(const Function& function, const std::string& what) const {
    cudaError_t error = cudaSetDevice(index_);
    if (error == cudaSuccess) error = function();
    return ToStatus(error, "GPU " + std::to_string(index_) + " (" + name_ + "): " + what);
  }

  // cudaMalloc takes memory from the driver in pages of this size.
  static constexpr uint64_t kAllocationBytes = uint64_t{2} << 20;

  const int index_;
  const std::string name_;
  uint64_t own_bytes_ = 0;
};

// Whether CUDA shows this program a GPU of that index. Errors: as FindCudaGpu.
Status CheckIndex(int index) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();
  if (error != cudaSuccess && error != cudaErrorNoDevice) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return Status(ErrorCode::kUnsupported, "CUDA finds no NVIDIA driver");
    return Status(ErrorCode::kUnsupported,
                  "no GPU can be used: " + std::string(cudaGetErrorString(error)) +
                      ", the driver is for CUDA " + std::to_string(driver / 1000) + "." +
                      std::to_string(driver % 1000 / 10));
  }
  if (error == cudaErrorNoDevice || count == 0) {
    return Status(ErrorCode::kNotFound,
                  "CUDA shows no GPU to this program (CUDA_VISIBLE_DEVICES hides those that it "
                  "does not name)");
  }
  if (index < 0 || index >= count) {
    return Status(ErrorCode::kNotFound, "there is no GPU " + std::to_string(index) +
                                            ", CUDA shows this program " + std::to_string(count));
  }
  return Status();
}

std::string UuidText(const cudaUUID_t& uuid) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < sizeof(uuid.bytes); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    const auto byte = static_cast<unsigned char>(uuid.bytes[i]);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Result<std::string> PciAddress(int index) {
  char address[32] = {};
  const cudaError_t error = cudaDeviceGetPCIBusId(address, sizeof(address), index);
  if (Status s = ToStatus(error, "GPU address"); !s.ok()) return s;
  return std::string(address);
}

}  // namespace

Result<CudaGpu> FindCudaGpu(int index) {
  if (Status s = CheckIndex(index); !s.ok()) return s;
  Result<std::string> address = PciAddress(index);
  if (!address.ok()) return Status(ErrorCode::kUnsupported, address.status().message());
  cudaDeviceProp properties = {};
  const cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (Status s = ToStatus(error, "GPU properties"); !s.ok()) {
    return Status(ErrorCode::kUnsupported, s.message());
  }
  return CudaGpu{properties.name, std::move(*address), UuidText(properties.uuid),
                 properties.totalGlobalMem,
                 std::to_string(properties.major) + "." + std::to_string(properties.minor)};
}

Result<std::unique_ptr<Device>> OpenCudaDevice(int index, Status (*load_kernels)()) {
  const Result<CudaGpu> gpu = FindCudaGpu(index);
  if (!gpu.ok()) return Status(ErrorCode::kUnsupported, gpu.status().message());
  if (std::atoi(gpu->compute_capability.c_str()) < kOldestMajor) {
    return Status(ErrorCode::kUnsupported, gpu->name + " has compute capability " +
                                               gpu->compute_capability +
                                               "; 8.0 (Ampere) is the oldest that sluice runs on");
  }
  auto device = std::make_unique<CudaDevice>(index, gpu->name);
  if (Status s = device->Open(gpu->pci_address, load_kernels); !s.ok()) return s;
  return std::unique_ptr<Device>(std::move(device));
}

const char* CudaBuildDescription() { return SLUICE_CUDA_DESCRIPTION; }

}  // namespace sluice
