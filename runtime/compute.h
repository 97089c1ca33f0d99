// Where a model is computed.
#ifndef SLUICE_RUNTIME_COMPUTE_H_
#define SLUICE_RUNTIME_COMPUTE_H_

#include "kernels/cuda/cublaslt.h"
#include "kernels/ops.h"
#include "offload/device.h"

namespace sluice {

// Operations, and for those of a device (OpTable::on_device) the device whose memory they read and
// the one stream that they run on. A plain value; what it points to outlives its users.
struct Compute {
  // Implicit: on the host the table says it all.
  Compute(const OpTable* table) : ops(table) {}  // NOLINT(google-explicit-constructor)
  Compute(const OpTable* table, Device* its_device, DeviceStream* its_stream,
          CublasLt* its_f16_library = nullptr)
      : ops(table), device(its_device), stream(its_stream), f16_library(its_f16_library) {}

  CUstream_st* handle() const { return stream == nullptr ? nullptr : stream->handle(); }

  const OpTable* ops;
  Device* device = nullptr;        // null: the host
  DeviceStream* stream = nullptr;  // null: the host
  // Of a device: multiplies prompts in f16; null: they are multiplied as all else.
  CublasLt* f16_library = nullptr;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_COMPUTE_H_
