// Shell completion, written from the declaration of the verbs and their options.
#ifndef SLUICE_TOOLS_COMPLETION_H_
#define SLUICE_TOOLS_COMPLETION_H_

#include <string>

namespace CLI {
class App;
}

namespace sluice {

std::string BashCompletion(const CLI::App& app);
std::string ZshCompletion(const CLI::App& app);
std::string FishCompletion(const CLI::App& app);

}  // namespace sluice

#endif  // SLUICE_TOOLS_COMPLETION_H_
