#include "loaders/chat_template/filters.h"

#include <fmt/format.h>

#include <unordered_map>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

const std::unordered_map<std::string_view, Filter>& Filters() {
  static const auto* filters = [] {
    auto* all = new std::unordered_map<std::string_view, Filter>;
    for (const FilterList& part : {TextFilters(), ListFilters(), OrderFilters()}) {
      all->insert(part.begin(), part.end());
    }
    return all;
  }();
  return *filters;
}

}  // namespace

Value ApplyFilter(Context& context, const std::string& name, const Value& input,
                  const CallArguments& arguments) {
  if (!context.Step()) return {};
  const auto found = Filters().find(name);
  if (found == Filters().end()) return context.Unsupported(fmt::format("the filter '{}'", name));
  Value value = found->second(context, input, arguments);
  return context.failed() ? Value() : value;
}

}  // namespace sluice::chat_template
