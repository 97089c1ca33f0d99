// A device that computes and its memory: buffers, streams, events and copies as values that give
// back what they hold. One interface, two implementations: CUDA, and the host (for machines without
// a GPU and for tests, which also put faults into it). No CUDA header is needed to include this.
//
// Errors of all functions: kOutOfMemory where memory was asked for and there is none; kIo when the
// device failed or is lost, after which every call on it fails, and what it held is gone.
#ifndef SLUICE_OFFLOAD_DEVICE_H_
#define SLUICE_OFFLOAD_DEVICE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "formats/status.h"

struct CUstream_st;  // what CUDA's handles point to
struct CUevent_st;
struct CUgraphExec_st;

namespace sluice {

class Device;

enum class MemorySpace : uint8_t {
  kDevice,      // only the device reads and writes it
  kPinnedHost,  // host memory from which the device copies at its full rate, while others go on
};

// Memory of a device. Move-only; aligned to 256 bytes; not initialized.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(Device* device, MemorySpace space, std::byte* data, uint64_t size_bytes)
      : device_(device), space_(space), data_(data), size_bytes_(size_bytes) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  std::byte* data() const { return data_; }
  uint64_t size_bytes() const { return size_bytes_; }
  MemorySpace space() const { return space_; }

 private:
  Device* device_ = nullptr;
  MemorySpace space_ = MemorySpace::kDevice;
  std::byte* data_ = nullptr;
  uint64_t size_bytes_ = 0;
};

// A point in the work of a stream. Move-only.
class DeviceEvent {
 public:
  DeviceEvent() = default;
  DeviceEvent(Device* device, CUevent_st* handle) : device_(device), handle_(handle) {}
  DeviceEvent(DeviceEvent&& other) noexcept;
  DeviceEvent& operator=(DeviceEvent&& other) noexcept;
  ~DeviceEvent();

  // Whether all work before it is done; true before it was recorded.
  Result<bool> Done() const;
  // Waits on this thread.
  Status Synchronize() const;
  // Seconds of the device between two points that are both done.
  Result<double> SecondsSince(const DeviceEvent& earlier) const;
  CUevent_st* handle() const { return handle_; }

 private:
  Device* device_ = nullptr;
  CUevent_st* handle_ = nullptr;
};

// Work that was recorded once, and is started again as a whole: with the addresses and sizes that
// it was recorded with, and what lies there now. Move-only. What was started goes on after its end.
class DeviceGraph {
 public:
  DeviceGraph() = default;
  DeviceGraph(Device* device, CUgraphExec_st* handle) : device_(device), handle_(handle) {}
  DeviceGraph(DeviceGraph&& other) noexcept;
  DeviceGraph& operator=(DeviceGraph&& other) noexcept;
  ~DeviceGraph();

  CUgraphExec_st* handle() const { return handle_; }

 private:
  Device* device_ = nullptr;
  CUgraphExec_st* handle_ = nullptr;
};

enum class CopyDirection : uint8_t { kHostToDevice, kDeviceToHost, kDeviceToDevice };

// Work in order. Calls return when it is queued; an error of the work itself shows in a later call.
// Move-only; one thread at a time. Its end waits for what it was given.
class DeviceStream {
 public:
  DeviceStream() = default;
  DeviceStream(Device* device, CUstream_st* handle) : device_(device), handle_(handle) {}
  DeviceStream(DeviceStream&& other) noexcept;
  DeviceStream& operator=(DeviceStream&& other) noexcept;
  ~DeviceStream();

  // Source and target live until the copy is done. A host side that is not pinned may hold the
  // caller up until then.
  Status Copy(void* to, const void* from, uint64_t size_bytes, CopyDirection direction);
  // `rows` pieces of row_bytes each, pitch_bytes apart on both sides, which are device memory.
  // REQUIRES: row_bytes <= pitch_bytes < 2^31; no byte is both read and written.
  Status CopyRows(void* to, const void* from, uint64_t pitch_bytes, uint64_t row_bytes,
                  uint64_t rows);
  Status Fill(void* to, uint8_t value, uint64_t size_bytes);
  Status Record(const DeviceEvent& event);
  // What comes after waits for the event, on the device.
  Status Wait(const DeviceEvent& event);
  // From here on copies, fills and kernels are recorded, not done, until EndCapture; nothing else
  // may be asked of the stream between the two. Error: kUnsupported by devices that cannot record.
  Status BeginCapture();
  // What was recorded. It may take device memory that nothing counts, but Device::Memory. After an
  // error nothing of it is left, and the stream works as before unless the device is lost.
  Result<DeviceGraph> EndCapture();
  Status Launch(const DeviceGraph& graph);
  // Waits on this thread until all is done; says what failed since the last call, kernels included.
  Status Synchronize();
  // What the operations (kernels/ops.h) take. They report nothing: Synchronize does.
  CUstream_st* handle() const { return handle_; }

 private:
  Device* device_ = nullptr;
  CUstream_st* handle_ = nullptr;
};

struct DeviceMemory {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
};

// Outlives all that it made. Any thread may call it.
class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;
  virtual Result<DeviceMemory> Memory() = 0;
  // Device memory that it took for itself when it was opened: context and kernels.
  virtual uint64_t own_bytes() const { return 0; }
  // Device memory is taken in units of so many bytes.
  virtual uint64_t unit_bytes() const { return 1; }

  // Bound on own_bytes and allocated_bytes together; an allocation beyond it finds no memory.
  void set_limit_bytes(uint64_t limit_bytes) { limit_bytes_ = limit_bytes; }
  // What the bound leaves.
  uint64_t room_bytes() const;
  // Device memory that buffers hold, each rounded up to whole units.
  uint64_t allocated_bytes() const { return allocated_bytes_; }

  Result<DeviceBuffer> Allocate(uint64_t size_bytes, MemorySpace space = MemorySpace::kDevice);
  // Counts memory of the device that a library took for this program, as allocated for as long as
  // the device lives. Error: kOutOfMemory where the bound leaves less; it is not counted then.
  Status CountTaken(uint64_t size_bytes);
  Result<DeviceStream> CreateStream();
  Result<DeviceEvent> CreateEvent();

 protected:
  friend class DeviceBuffer;
  friend class DeviceEvent;
  friend class DeviceGraph;
  friend class DeviceStream;

  // What an implementation gives. Sizes are not 0; handles are its own.
  virtual Result<std::byte*> AllocateBytes(uint64_t size_bytes, MemorySpace space) = 0;
  virtual void FreeBytes(std::byte* data, uint64_t size_bytes, MemorySpace space) = 0;
  virtual Result<CUstream_st*> MakeStream() = 0;
  virtual void EndStream(CUstream_st* stream) = 0;
  virtual Result<CUevent_st*> MakeEvent() = 0;
  virtual void EndEvent(CUevent_st* event) = 0;
  virtual Status Copy(CUstream_st* stream, void* to, const void* from, uint64_t size_bytes,
                      CopyDirection direction) = 0;
  virtual Status CopyRows(CUstream_st* stream, void* to, const void* from, uint64_t pitch_bytes,
                          uint64_t row_bytes, uint64_t rows) = 0;
  virtual Status Fill(CUstream_st* stream, void* to, uint8_t value, uint64_t size_bytes) = 0;
  virtual Status Record(CUstream_st* stream, CUevent_st* event) = 0;
  virtual Status Wait(CUstream_st* stream, CUevent_st* event) = 0;
  virtual Status Synchronize(CUstream_st* stream) = 0;
  virtual Result<bool> Done(CUevent_st* event) = 0;
  virtual Status Synchronize(CUevent_st* event) = 0;
  virtual Result<double> SecondsBetween(CUevent_st* earlier, CUevent_st* later) = 0;
  // For devices that record; the others are done when a call returns.
  virtual Status BeginCapture(CUstream_st* stream);
  virtual Result<CUgraphExec_st*> EndCapture(CUstream_st* stream);
  virtual void EndGraph(CUgraphExec_st*) {}
  virtual Status Launch(CUstream_st* stream, CUgraphExec_st* graph);

 private:
  void Free(std::byte* data, uint64_t size_bytes, MemorySpace space);
  uint64_t InUnits(uint64_t size_bytes) const;

  std::atomic<uint64_t> limit_bytes_ = UINT64_MAX;
  std::atomic<uint64_t> allocated_bytes_ = 0;
};

// The host as a device with `memory_bytes` of its own memory: work is done before the call that
// asks for it returns.
std::unique_ptr<Device> OpenHostDevice(uint64_t memory_bytes);

// The GPU that sluice computes on, as CUDA counts them: its first, which is the fastest unless the
// user's environment says otherwise (CUDA_DEVICE_ORDER, CUDA_VISIBLE_DEVICES).
inline constexpr int kUsedGpu = 0;

struct CudaGpu {
  std::string name;
  std::string pci_address;  // "0000:01:00.0"
  std::string uuid;         // 8-4-4-4-12 digits; of the instance where the GPU is divided (MIG)
  uint64_t memory_bytes = 0;
  std::string compute_capability;  // "8.9"
};

// The GPU of that index, as CUDA counts them, without a context on it. Errors: kNotFound where
// CUDA shows this program none of that index; kUnsupported where this build has no CUDA, there is
// no driver, or it does not work with this build.
Result<CudaGpu> FindCudaGpu(int index);

// The GPU of that index, as CUDA counts them. `load_kernels`, if there is one, is called with
// the GPU current on this thread; what it loads counts as the device's own, so that nothing takes
// device memory later but Allocate. What others take meanwhile counts too; where the driver's
// management library is missing, all that is used on the GPU does. Errors: kUnsupported where this
// build has no CUDA, there is no driver or no such GPU, or it is older than compute capability 8.0;
// kOutOfMemory; those of load_kernels.
Result<std::unique_ptr<Device>> OpenCudaDevice(int index, Status (*load_kernels)() = nullptr);

// Whether this build has CUDA, and for which GPUs: "CUDA 13.0: sm_89", or "none".
const char* CudaBuildDescription();

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_DEVICE_H_
