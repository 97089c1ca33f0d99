#include "tools/bench_table.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace sluice {
namespace {

std::string Number(const std::optional<double>& value, double unit, const char* format) {
  return value ? fmt::format(fmt::runtime(format), *value / unit) : "";
}

std::string Markdown(const std::vector<BenchRow>& rows) {
  std::string text = "| | tokens/s | GB/s | share of the limit | |\n|---|---|---|---|---|\n";
  for (const BenchRow& row : rows) {
    text += fmt::format(
        "| {} | {} | {} | {} | {} |\n", row.name, Number(row.tokens_per_s, 1, "{:.2f}"),
        Number(row.bytes_per_s, 1e9, "{:.2f}"), Number(row.share_of_limit, 1, "{:.3f}"), row.note);
  }
  return text;
}

std::string Quote(const std::string& text) {
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string Csv(const std::vector<BenchRow>& rows) {
  std::string text = "name,tokens_per_s,bytes_per_s,limit,share_of_limit,note\n";
  for (const BenchRow& row : rows) {
    text += fmt::format("{},{},{},{},{},{}\n", Quote(row.name), Number(row.tokens_per_s, 1, "{}"),
                        Number(row.bytes_per_s, 1, "{}"), Number(row.limit, 1, "{}"),
                        Number(row.share_of_limit, 1, "{}"), Quote(row.note));
  }
  return text;
}

std::string JsonText(const std::vector<BenchRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  const auto number = [](const std::optional<double>& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
  };
  for (const BenchRow& row : rows) {
    list.push_back({{"name", row.name},
                    {"tokens_per_s", number(row.tokens_per_s)},
                    {"bytes_per_s", number(row.bytes_per_s)},
                    {"limit", number(row.limit)},
                    {"share_of_limit", number(row.share_of_limit)},
                    {"note", row.note}});
  }
  return list.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string FormatBenchRows(const std::vector<BenchRow>& rows, const std::string& format) {
  if (format == "json") return JsonText(rows);
  if (format == "csv") return Csv(rows);
  return Markdown(rows);
}

}  // namespace sluice
