// SHA-256 (FIPS 180-4), for goldens that store only a digest.
#ifndef SLUICE_TESTS_SUPPORT_SHA256_H_
#define SLUICE_TESTS_SUPPORT_SHA256_H_

#include <cstddef>
#include <span>
#include <string>

namespace sluice {

// Lower-case hexadecimal digest.
std::string Sha256Hex(std::span<const std::byte> bytes);

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_SHA256_H_
