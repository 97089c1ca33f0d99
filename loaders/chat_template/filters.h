// How the filters are divided between files.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_FILTERS_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_FILTERS_H_

#include <string_view>
#include <utility>
#include <vector>

#include "loaders/chat_template/context.h"

namespace sluice::chat_template {

using Filter = Value (*)(Context&, const Value&, const CallArguments&);
using FilterList = std::vector<std::pair<std::string_view, Filter>>;

FilterList TextFilters();
FilterList ListFilters();
FilterList OrderFilters();

// The value that `attribute` ("a.b.0", or an index) names in `value`; what is missing is `missing`
// if that is not null, else undefined.
Value AttributeOf(Context& context, const Value& value, const Value& attribute,
                  const Value* missing);

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_FILTERS_H_
