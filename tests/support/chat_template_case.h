// A rendering as the goldens and the comparison script write it down.
#ifndef SLUICE_TESTS_SUPPORT_CHAT_TEMPLATE_CASE_H_
#define SLUICE_TESTS_SUPPORT_CHAT_TEMPLATE_CASE_H_

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loaders/chat_template/chat_template.h"
#include "loaders/chat_template/chat_template_input.h"

namespace sluice {

// From {"messages": [...], "tools": ..., "add_generation_prompt": ..., "bos_token": ...,
// "eos_token": ..., "variables": {...}, "now": seconds}; fields may be missing.
ChatTemplateInput ChatTemplateInputFromJson(const nlohmann::ordered_json& json);

// The text of all runs.
std::string JoinRuns(const std::vector<TemplateRun>& runs);

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_CHAT_TEMPLATE_CASE_H_
