// What this program is and what it was built from.
#ifndef SLUICE_TOOLS_VERSION_H_
#define SLUICE_TOOLS_VERSION_H_

#include <string>

namespace sluice {

std::string Version();      // "0.1.0"
std::string VersionLine();  // "sluice 0.1.0 (...)"

}  // namespace sluice

#endif  // SLUICE_TOOLS_VERSION_H_
