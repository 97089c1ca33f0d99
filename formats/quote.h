// Names from a file, made safe for one line of an error message.
#ifndef SLUICE_FORMATS_QUOTE_H_
#define SLUICE_FORMATS_QUOTE_H_

#include <string>
#include <string_view>

namespace sluice {

// 'name' in single quotes. Bytes that are not printable ASCII become \xNN, and a name of more than
// 120 bytes is cut with "...": a hostile file neither forges lines of a log nor fills it.
std::string Quoted(std::string_view name);

}  // namespace sluice

#endif  // SLUICE_FORMATS_QUOTE_H_
