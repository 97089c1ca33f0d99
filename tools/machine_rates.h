// Speeds of this machine, measured once and kept in the user's cache.
#ifndef SLUICE_TOOLS_MACHINE_RATES_H_
#define SLUICE_TOOLS_MACHINE_RATES_H_

#include <string>

#include "formats/status.h"
#include "runtime/planner.h"

namespace sluice {

struct RatesRequest {
  std::string isa;  // "": the fastest
  int threads = 0;  // 0: one for each core
  // A file on the drive that weights would stream from; "": the drive is not measured.
  std::string file;
  bool measure_anew = false;
  bool quiet = false;
};

struct RatesReport {
  PlanRates rates;
  std::string isa;
  int threads = 0;
  // How the drive's rate is known: "measured now", "measured before", "assumed".
  std::string drive_origin;
};

// Rates for the weight types of the outline: from the cache (keyed by processor, table, threads,
// and for the drive by its device), or measured now, for some seconds at most, and kept there. A
// cache that cannot be written is no error. Errors: those of SelectTable and MeasureMatmul.
Result<RatesReport> RatesFor(const ModelOutline& outline, const RatesRequest& request);

}  // namespace sluice

#endif  // SLUICE_TOOLS_MACHINE_RATES_H_
