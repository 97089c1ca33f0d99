// The command line: verbs and the one declaration of their options, from which parsing, help,
// completion and the environment variables come.
#ifndef SLUICE_TOOLS_CLI_H_
#define SLUICE_TOOLS_CLI_H_

#include <functional>
#include <memory>
#include <string>

#include "formats/status.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sluice {

class Cli {
 public:
  Cli();
  ~Cli();

  // `run` is called when the verb was chosen and its options are valid. Every option that the
  // caller adds gets its environment variable in Run.
  CLI::App* AddVerb(const std::string& name, const std::string& description,
                    const std::string& examples, std::function<Status()> run);

  const CLI::App& app() const { return *app_; }

  // Parses, and runs the chosen verb. A request for help prints it and is a success.
  Status Run(int argc, const char* const* argv);

 private:
  std::unique_ptr<CLI::App> app_;
  std::function<Status()> chosen_;
};

// The environment variable of an option: SLUICE_ and its long name. "" for positionals and help.
std::string EnvironmentName(const CLI::Option& option);

// One of these in each verb_*.cc.
void AddRunVerb(Cli* cli);
void AddChatVerb(Cli* cli);
void AddConvertVerb(Cli* cli);
void AddInspectVerb(Cli* cli);
void AddVerifyVerb(Cli* cli);
void AddEvalVerb(Cli* cli);
void AddTokenizeVerb(Cli* cli);
void AddSynthVerb(Cli* cli);
void AddBenchVerb(Cli* cli);
void AddPlanVerb(Cli* cli);
void AddDoctorVerb(Cli* cli);
void AddCompletionVerb(Cli* cli);
void AddVersionVerb(Cli* cli);

void AddAllVerbs(Cli* cli);

}  // namespace sluice

#endif  // SLUICE_TOOLS_CLI_H_
