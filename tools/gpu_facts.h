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
// One line for each GPU. Of several it says which one sluice uses, and at the end how to choose
// another; `note` follows each ("; driver 580.95.05").
std::string GpusText(const MachineFacts& facts, const std::string& note);
nlohmann::ordered_json GpusJson(const MachineFacts& facts);

// Whether a GPU is there and CUDA shows it to this program: facts.gpus[facts.used_gpu].
bool HasUsedGpu(const MachineFacts& facts);

// Why no GPU of the machine computes, whatever its memory; "" where the one that is used can.
std::string WhyNoGpu(const MachineFacts& facts);

}  // namespace sluice

#endif  // SLUICE_TOOLS_GPU_FACTS_H_
