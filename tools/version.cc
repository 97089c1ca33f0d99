#include "tools/version.h"

#include <fmt/format.h>

namespace sluice {

std::string Version() { return SLUICE_VERSION; }

std::string VersionLine() { return fmt::format("sluice {}", SLUICE_VERSION); }

}  // namespace sluice
