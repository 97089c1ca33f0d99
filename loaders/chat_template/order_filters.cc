// Filters that compare elements with one another.
#include <algorithm>
#include <numeric>

#include "loaders/chat_template/filters.h"
#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

// Text in lower case, and any other value as it is, as jinja2 compares when case does not matter.
Value Folded(Context& context, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return context.Make(ChangeCase(*value.string(), LetterCase::kLower));
}

// What an element is compared by.
Value KeyOf(Context& context, const Value& item, const Value* attribute, bool case_sensitive) {
  const bool by_attribute = attribute != nullptr && !attribute->is_none();
  return Folded(context, by_attribute ? AttributeOf(context, item, *attribute, nullptr) : item,
                case_sensitive);
}

// The order of the elements by their keys; stable, also when it is reversed.
std::vector<size_t> SortedOrder(Context& context, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // A merge sort of our own: it stays in bounds when a comparison fails half way.
  std::vector<size_t> merged(order.size());
  for (size_t width = 1; width < order.size() && !context.failed(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, order.size());
      const size_t end = std::min(begin + 2 * width, order.size());
      size_t left = begin;
      size_t right = middle;
      for (size_t i = begin; i < end; ++i) {
        bool take_right = left == middle;
        if (left < middle && right < end) {
          const Value& a = keys[order[left]];
          const Value& b = keys[order[right]];
          take_right = reverse ? Compare(context, Operator::kLess, a, b)
                               : Compare(context, Operator::kLess, b, a);
        }
        merged[i] = order[take_right ? right++ : left++];
      }
    }
    std::swap(order, merged);
  }
  return order;
}

Value Sort(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> items = Elements(context, input);
  const MarkedString* paths = parameters[2] != nullptr ? parameters[2]->string() : nullptr;
  if (paths != nullptr && paths->text().find(',') != std::string::npos) {
    return context.Unsupported("sort by several attributes");
  }
  std::vector<Value> keys;
  for (const Value& item : items) {
    keys.push_back(KeyOf(context, item, parameters[2], parameters.Truth(1, false)));
  }
  List sorted;
  for (const size_t index : SortedOrder(context, keys, parameters.Truth(0, false))) {
    sorted.items.push_back(items[index]);
  }
  return context.failed() ? Value() : context.Make(std::move(sorted));
}

Value DictSort(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const MarkedString* by = parameters.Text(1);
  if (by != nullptr && by->text() != "key" && by->text() != "value") {
    return context.Fail("You can only sort by either \"key\" or \"value\"");
  }
  if (input.dict() == nullptr) return context.Fail("dictsort needs a mapping");
  const bool by_value = by != nullptr && by->text() == "value";
  std::vector<Value> keys;
  for (const auto& [key, value] : input.dict()->items) {
    keys.push_back(Folded(context, by_value ? value : key, parameters.Truth(0, false)));
  }
  List sorted;
  for (const size_t index : SortedOrder(context, keys, parameters.Truth(2, false))) {
    List pair;
    pair.is_tuple = true;
    pair.items = {input.dict()->items[index].first, input.dict()->items[index].second};
    sorted.items.push_back(context.Make(std::move(pair)));
  }
  return context.failed() ? Value() : context.Make(std::move(sorted));
}

Value Unique(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "unique", arguments, {"case_sensitive", "attribute"});
  List unique;
  Dict seen;
  for (const Value& item : Elements(context, input)) {
    const Value key = KeyOf(context, item, parameters[1], parameters.Truth(0, false));
    if (!context.Step()) return {};
    if (context.Find(seen, key) != nullptr) continue;
    context.Set(&seen, key, Value(true));
    unique.items.push_back(item);
  }
  return context.failed() ? Value() : context.Make(std::move(unique));
}

template <Operator better>
Value Extreme(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "max", arguments, {"case_sensitive", "attribute"});
  const std::vector<Value> items = Elements(context, input);
  if (items.empty()) return Value::UndefinedWith("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key = KeyOf(context, items[0], parameters[1], parameters.Truth(0, false));
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = KeyOf(context, items[i], parameters[1], parameters.Truth(0, false));
    if (Compare(context, better, key, best_key)) {
      best = i;
      best_key = std::move(key);
    }
    if (context.failed()) return {};
  }
  return items[best];
}

Value Sum(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "sum", arguments, {"attribute", "start"});
  Value total = parameters[1] != nullptr ? *parameters[1] : Value(0);
  for (const Value& item : Elements(context, input)) {
    const bool by_attribute = parameters[0] != nullptr && !parameters[0]->is_none();
    const Value part = by_attribute ? AttributeOf(context, item, *parameters[0], nullptr) : item;
    if (context.failed()) return {};
    total = Arithmetic(context, Operator::kAdd, total, part);
  }
  return total;
}

// The tuple (key, list).
Value Group(Context& context, Value key, List members) {
  List group;
  group.is_tuple = true;
  group.items.push_back(std::move(key));
  group.items.push_back(context.Make(std::move(members)));
  return context.Make(std::move(group));
}

Value GroupBy(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "groupby", arguments, {"attribute", "default", "case_sensitive"});
  if (parameters[0] == nullptr) return context.Fail("groupby needs an attribute");
  const std::vector<Value> items = Elements(context, input);
  std::vector<Value> names;
  std::vector<Value> keys;
  for (const Value& item : items) {
    names.push_back(AttributeOf(context, item, *parameters[0], parameters[1]));
    keys.push_back(Folded(context, names.back(), parameters.Truth(2, false)));
  }
  List groups;
  List members;
  const std::vector<size_t> order = SortedOrder(context, keys, false);
  for (size_t i = 0; i < order.size() && !context.failed(); ++i) {
    members.items.push_back(items[order[i]]);
    const bool ends = i + 1 == order.size() || !context.Equals(keys[order[i]], keys[order[i + 1]]);
    if (!ends) continue;
    const size_t first = order[i + 1 - members.items.size()];
    groups.items.push_back(Group(context, names[first], std::exchange(members, {})));
  }
  return context.failed() ? Value() : context.Make(std::move(groups));
}

}  // namespace

FilterList OrderFilters() {
  return {
      {"sort", Sort},
      {"dictsort", DictSort},
      {"unique", Unique},
      {"min", Extreme<Operator::kLess>},
      {"max", Extreme<Operator::kGreater>},
      {"sum", Sum},
      {"groupby", GroupBy},
  };
}

}  // namespace sluice::chat_template
