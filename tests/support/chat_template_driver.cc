// Renders chat templates for tests/golden/compare_chat_templates.py.
//
// Each line of standard input is an object {"template": ..., and the fields of a case}; each line
// of standard output is {"text": ...} or {"error": code, "message": ...}, and the milliseconds it
// took.
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/chat_template_case.h"

namespace {

nlohmann::ordered_json RenderCase(const nlohmann::ordered_json& json) {
  sluice::Result<sluice::ChatTemplate> parsed =
      sluice::ChatTemplate::Parse(json.at("template").get<std::string>());
  sluice::Status status = parsed.status();
  if (parsed.ok()) {
    const auto runs = parsed->Render(sluice::ChatTemplateInputFromJson(json));
    if (runs.ok()) return {{"text", sluice::JoinRuns(*runs)}};
    status = runs.status();
  }
  return {{"error", sluice::ErrorCodeName(status.code())}, {"message", status.message()}};
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto begin = std::chrono::steady_clock::now();
    nlohmann::ordered_json answer = RenderCase(nlohmann::ordered_json::parse(line));
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - begin;
    answer["ms"] = taken.count();
    std::cout << answer.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  }
  return 0;
}
