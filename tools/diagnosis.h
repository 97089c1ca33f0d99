// What a machine offers and what is wrong with it: what `doctor` prints.
#ifndef SLUICE_TOOLS_DIAGNOSIS_H_
#define SLUICE_TOOLS_DIAGNOSIS_H_

#include <optional>
#include <string>
#include <vector>

#include "runtime/machine.h"

namespace sluice {

struct Finding {
  std::string problem, cure;
};

struct Diagnosis {
  MachineFacts facts;
  double memory_bytes_per_s = 0;
  bool memory_was_busy = false;  // others used the processors while it was measured
  std::optional<DriveRate> drive;
  // That multiplies prompts in f16 on a GPU; where it is empty, why there is none.
  std::string f16_library;
  std::string no_f16_library;
  std::optional<std::string> visible_devices;  // CUDA_VISIBLE_DEVICES, if it is set
  std::vector<Finding> findings;
};

// Fills `findings` from the rest.
void FindProblems(Diagnosis* diagnosis);

std::string DiagnosisJson(const Diagnosis& diagnosis);
std::string DiagnosisText(const Diagnosis& diagnosis);

}  // namespace sluice

#endif  // SLUICE_TOOLS_DIAGNOSIS_H_
