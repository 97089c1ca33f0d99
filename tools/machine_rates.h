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
  bool only_known = false;    // measures nothing: kNotFound where a rate but the drive's is missing
  bool bf16_prompts = false;  // the rates of products in bf16 too
  bool (*is_busy)(const Load&) = IsBusy;  // for tests
};

struct RatesReport {
  PlanRates rates;
  std::string isa;
  int threads = 0;
  // How the drive's rate is known: "measured now", "measured before", "assumed", "given".
  std::string drive_origin;
  // Others used the processors all the time while some of these were measured: those may be too
  // low, and were not kept.
  bool busy = false;
};

// Rates for the weight types of the outline: from the cache (keyed by processor, table, threads,
// and for the drive by its device), or measured now, for some seconds at most, and kept there. What
// was measured while others used the processors is measured again, some times; what was never
// measured in quiet is not kept. A cache that cannot be written is no error. Errors: those of
// MeasureMatmulOn and, for prompts in bf16, of MeasureBf16BatchOn; kNotFound as only_known says.
Result<RatesReport> RatesFor(const ModelOutline& outline, const RatesRequest& request);

// Rates for the weight types of the outline from a file that `plan --json` wrote, on this machine
// or on another one. Errors: those of ReadWholeFile; kCorrupt for anything but an object with the
// rates, each a number above 0 (the busy drive's may be missing, and those of bf16 where prompts
// are not in it); kNotFound for a type of weights that has none.
Result<RatesReport> RatesInFile(const std::string& path, const ModelOutline& outline,
                                bool bf16_prompts);

}  // namespace sluice

#endif  // SLUICE_TOOLS_MACHINE_RATES_H_
