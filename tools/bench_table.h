// Rows of a benchmark, as a table for people, Markdown, CSV or JSON.
#ifndef SLUICE_TOOLS_BENCH_TABLE_H_
#define SLUICE_TOOLS_BENCH_TABLE_H_

#include <optional>
#include <string>
#include <vector>

namespace sluice {

struct BenchRow {
  std::string name;
  std::optional<double> tokens_per_s;
  std::optional<double> bytes_per_s;
  std::optional<double> limit;  // in the unit of what is measured
  std::optional<double> share_of_limit;
  std::string note;
};

// `format` is "md", "csv" or "json".
std::string FormatBenchRows(const std::vector<BenchRow>& rows, const std::string& format);

}  // namespace sluice

#endif  // SLUICE_TOOLS_BENCH_TABLE_H_
