// What the machine's GPUs are, as verbs print it.
#ifndef SLUICE_TOOLS_GPU_FACTS_H_
#define SLUICE_TOOLS_GPU_FACTS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/machine.h"

namespace sluice {

// "NVIDIA H200, 140 GiB (139 GiB free), compute 9.0, PCIe 5 x16", on one line.
std::string GpuText(const GpuFacts& gpu);
nlohmann::ordered_json GpusJson(const std::vector<GpuFacts>& gpus);

// Why no GPU of the machine computes, whatever its memory; "" where the first one can.
std::string WhyNoGpu(const MachineFacts& facts);

}  // namespace sluice

#endif  // SLUICE_TOOLS_GPU_FACTS_H_
