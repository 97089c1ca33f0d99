// Whether this build has a sanitizer.
#ifndef SLUICE_TESTS_SUPPORT_SANITIZED_H_
#define SLUICE_TESTS_SUPPORT_SANITIZED_H_

namespace sluice::test {

// What a sanitizer looks for is in the lines that run, not in how often or with which numbers: a
// test of random loads or of many combinations does fewer there. The release build does all.
inline constexpr bool kSanitized = SLUICE_SANITIZED != 0;

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SANITIZED_H_
