// sluice completion: a script for the shell.
#include <memory>

#include "tools/cli.h"
#include "tools/completion.h"
#include "tools/options.h"
#include "tools/output.h"

namespace sluice {
namespace {

Status PrintCompletion(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return WriteStdout(BashCompletion(app));
  if (shell == "zsh") return WriteStdout(ZshCompletion(app));
  return WriteStdout(FishCompletion(app));
}

}  // namespace

void AddCompletionVerb(Cli* cli) {
  auto shell = std::make_shared<std::string>();
  CLI::App* verb =
      cli->AddVerb("completion", "Prints a completion script for a shell",
                   "  source <(sluice completion bash)\n"
                   "  sluice completion fish > ~/.config/fish/completions/sluice.fish\n",
                   [cli, shell] { return PrintCompletion(cli->app(), *shell); });
  AddChoiceOption(verb, "SHELL", shell.get(), {"bash", "zsh", "fish"}, "The shell").Required();
}

}  // namespace sluice
