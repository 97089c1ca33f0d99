// Llama (Touvron et al., 2023): RMSNorm, rotary positions, MHA/GQA/MQA, SwiGLU; optional biases.
#ifndef SLUICE_LOADERS_ARCHITECTURES_LLAMA_H_
#define SLUICE_LOADERS_ARCHITECTURES_LLAMA_H_

#include "loaders/architecture.h"

namespace sluice {

ModelDescription DescribeLlama(const ModelConfig& config);

}  // namespace sluice

#endif  // SLUICE_LOADERS_ARCHITECTURES_LLAMA_H_
