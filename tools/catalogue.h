// What is in a model's file, whatever its container: for sluice inspect.
#ifndef SLUICE_TOOLS_CATALOGUE_H_
#define SLUICE_TOOLS_CATALOGUE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/status.h"

namespace sluice {

struct CatalogueTensor {
  std::string name;
  std::string type;
  std::vector<uint64_t> shape;  // outermost first
  uint64_t size_bytes = 0;
  uint64_t offset_bytes = 0;
};

struct Catalogue {
  // All but the tensors, in the order in which it is shown. "container" comes first.
  nlohmann::ordered_json facts;
  std::vector<CatalogueTensor> tensors;
};

// Reads headers and metadata, no weights: a .sluice file, a GGUF file (of any architecture), a
// safetensors file, or a Hugging Face directory. Errors: those of the readers of these.
Result<Catalogue> ReadCatalogue(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_TOOLS_CATALOGUE_H_
