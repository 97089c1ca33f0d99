#include "tools/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <utility>

#include "tools/output.h"
#include "tools/version.h"

namespace sluice {
namespace {

// Says so when the offending word came from the environment.
Status UsageError(const CLI::App& app, const CLI::ParseError& error) {
  std::string message = error.what();
  std::string verb_name;
  for (const CLI::App* verb : app.get_subcommands()) {
    verb_name = " " + verb->get_name();
    for (const CLI::Option* option : verb->get_options()) {
      const std::string variable = option->get_envname();
      const char* value = variable.empty() ? nullptr : std::getenv(variable.c_str());
      if (value == nullptr || option->get_lnames().empty()) continue;
      const std::string name = "--" + option->get_lnames()[0];
      const size_t at = message.find(name);
      const bool named = at != std::string::npos &&
                         (at + name.size() == message.size() ||
                          std::string(":= ,").find(message[at + name.size()]) != std::string::npos);
      if (named && option->results() == std::vector<std::string>{value}) {
        message += " (from the environment variable " + variable + ")";
      }
    }
  }
  return Status(ErrorCode::kInvalidArgument,
                OnOneLine(message) + "; see sluice" + verb_name + " --help");
}

}  // namespace

Cli::Cli()
    : app_(std::make_unique<CLI::App>("Runs large language models on consumer hardware.",
                                      "sluice")) {
  app_->require_subcommand(1);
  app_->set_version_flag("--version", VersionLine());
  app_->get_formatter()->column_width(34);
  app_->get_formatter()->label("SUBCOMMAND", "VERB");
  app_->get_formatter()->label("SUBCOMMANDS", "VERBS");
  app_->get_formatter()->label("Subcommands", "Verbs");
  app_->get_formatter()->label("OPTIONS", "options");
  app_->footer(
      "Every option can also be given as an environment variable (shown as Env); the command line "
      "wins.\nSizes take K, M, G and T as powers of 1,024.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused (unsupported, does not fit), 130 "
      "interrupted.\n\nExamples:\n"
      "  sluice convert model.gguf -o model.sluice\n"
      "  sluice run model.sluice -p 'Why is the sky blue?'\n"
      "  sluice chat model.sluice\n");
}

Cli::~Cli() = default;

CLI::App* Cli::AddVerb(const std::string& name, const std::string& description,
                       const std::string& examples, std::function<Status()> run) {
  CLI::App* verb = app_->add_subcommand(name, description);
  verb->footer("Examples:\n" + examples);
  // With a callback of its own, a verb that was not chosen reads no environment.
  verb->parse_complete_callback([this, run = std::move(run)] { chosen_ = run; });
  return verb;
}

std::string EnvironmentName(const CLI::Option& option) {
  if (option.get_lnames().empty() || option.get_lnames()[0] == "help") return "";
  std::string name = "SLUICE_" + option.get_lnames()[0];
  for (char& c : name) {
    c = c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

Status Cli::Run(int argc, const char* const* argv) {
  for (CLI::App* verb : app_->get_subcommands({})) {
    for (CLI::Option* option : verb->get_options()) option->envname(EnvironmentName(*option));
  }
  try {
    app_->parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return WriteStdout(app_->help());
  } catch (const CLI::CallForVersion&) {
    return WriteStdout(VersionLine() + "\n");
  } catch (const CLI::ParseError& error) {
    return UsageError(*app_, error);
  }
  return chosen_();
}

void AddAllVerbs(Cli* cli) {
  AddRunVerb(cli);
  AddChatVerb(cli);
  AddConvertVerb(cli);
  AddInspectVerb(cli);
  AddVerifyVerb(cli);
  AddEvalVerb(cli);
  AddTokenizeVerb(cli);
  AddSynthVerb(cli);
  AddBenchVerb(cli);
  AddPlanVerb(cli);
  AddDoctorVerb(cli);
  AddCompletionVerb(cli);
  AddVersionVerb(cli);
}

}  // namespace sluice
