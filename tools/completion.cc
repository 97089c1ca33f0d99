#include "tools/completion.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string_view>
#include <vector>

namespace sluice {
namespace {

std::vector<const CLI::App*> Verbs(const CLI::App& app) { return app.get_subcommands({}); }

std::vector<const CLI::Option*> Options(const CLI::App& verb) {
  return verb.get_options([](const CLI::Option* option) { return option->nonpositional(); });
}

bool TakesValue(const CLI::Option& option) { return option.get_items_expected_max() != 0; }

// "--output", "-o".
std::vector<std::string> Flags(const CLI::Option& option) {
  std::vector<std::string> flags;
  for (const std::string& name : option.get_lnames()) flags.push_back("--" + name);
  for (const std::string& name : option.get_snames()) flags.push_back("-" + name);
  return flags;
}

// The words of a type that lists them, as "f32|f16" does; of an open list those that are whole.
std::vector<std::string> Choices(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (type.find('|') == std::string::npos) return {};
  std::vector<std::string> choices;
  for (const std::string& word : CLI::detail::split(type, '|')) {
    if (!word.empty() && word.find_first_of(".[]:") == std::string::npos) choices.push_back(word);
  }
  return choices;
}

std::vector<std::string> PositionalChoices(const CLI::App& verb) {
  for (const CLI::Option* option : verb.get_options()) {
    if (option->get_positional()) return Choices(*option);
  }
  return {};
}

// For a word in single quotes.
std::string ShellQuoted(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

// For a description inside a specification of zsh's _arguments.
std::string ZshText(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string BashCaseOfVerb(const CLI::App& verb) {
  std::string words, cases;
  for (const CLI::Option* option : Options(verb)) {
    const std::vector<std::string> flags = Flags(*option);
    words += fmt::format("{} ", fmt::join(flags, " "));
    if (!TakesValue(*option)) continue;
    const std::vector<std::string> choices = Choices(*option);
    cases += fmt::format("        {}) COMPREPLY=($(compgen {} -- \"$cur\")); return ;;\n",
                         fmt::join(flags, "|"),
                         choices.empty() ? "-f" : fmt::format("-W '{}'", fmt::join(choices, " ")));
  }
  const std::vector<std::string> positional = PositionalChoices(verb);
  return fmt::format(
      "    {0})\n"
      "      case \"$prev\" in\n{1}        *) ;;\n      esac\n"
      "      words='{2}'\n      files={3}\n      ;;\n",
      verb.get_name(), cases,
      positional.empty() ? words : fmt::format("{} {}", words, fmt::join(positional, " ")),
      positional.empty() ? "yes" : "no");
}

}  // namespace

std::string BashCompletion(const CLI::App& app) {
  std::string verbs, cases;
  for (const CLI::App* verb : Verbs(app)) {
    verbs += verb->get_name() + " ";
    cases += BashCaseOfVerb(*verb);
  }
  return fmt::format(
      "# bash completion of sluice: source it, or put it into\n"
      "# ~/.local/share/bash-completion/completions/sluice\n"
      "_sluice() {{\n"
      "  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}\n"
      "  local words='' files=no\n"
      "  COMPREPLY=()\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    COMPREPLY=($(compgen -W '{}--help --version' -- \"$cur\"))\n"
      "    return\n"
      "  fi\n"
      "  case \"${{COMP_WORDS[1]}}\" in\n{}"
      "    *) return ;;\n"
      "  esac\n"
      "  if [ \"$files\" = yes ] && [ \"${{cur#-}}\" = \"$cur\" ]; then\n"
      "    COMPREPLY=($(compgen -f -- \"$cur\"))\n"
      "  else\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
      "  fi\n"
      "}}\n"
      "complete -o filenames -F _sluice sluice\n",
      verbs, cases);
}

std::string ZshCompletion(const CLI::App& app) {
  std::string verbs, cases;
  for (const CLI::App* verb : Verbs(app)) {
    verbs += "    " + ShellQuoted(verb->get_name() + ":" + ZshText(verb->get_description())) + "\n";
    cases += fmt::format("    {})\n      _arguments \\\n", verb->get_name());
    for (const CLI::Option* option : Options(*verb)) {
      const std::vector<std::string> choices = Choices(*option);
      const std::string value = !TakesValue(*option) ? ""
                                : choices.empty()
                                    ? ":value:_files"
                                    : fmt::format(":value:({})", fmt::join(choices, " "));
      for (const std::string& flag : Flags(*option)) {
        const std::string spec =
            fmt::format("*{}[{}]{}", flag, ZshText(option->get_description()), value);
        cases += "        " + ShellQuoted(spec) + " \\\n";
      }
    }
    const std::vector<std::string> positional = PositionalChoices(*verb);
    cases += positional.empty()
                 ? "        '*:file:_files'\n      ;;\n"
                 : fmt::format("        '1:word:({})'\n      ;;\n", fmt::join(positional, " "));
  }
  return fmt::format(
      "#compdef sluice\n"
      "# zsh completion of sluice: put it as _sluice into a directory of $fpath\n"
      "_sluice() {{\n"
      "  local -a verbs\n"
      "  verbs=(\n{}  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe 'verb' verbs\n"
      "    return\n"
      "  fi\n"
      "  local verb=$words[2]\n"
      "  shift words\n"
      "  (( CURRENT-- ))\n"
      "  case $verb in\n{}  esac\n"
      "}}\n"
      "if [ \"$funcstack[1]\" = _sluice ]; then _sluice \"$@\"; else compdef _sluice sluice; fi\n",
      verbs, cases);
}

std::string FishCompletion(const CLI::App& app) {
  std::string text =
      "# fish completion of sluice: put it into ~/.config/fish/completions/sluice.fish\n";
  for (const CLI::App* verb : Verbs(app)) {
    text += fmt::format("complete -c sluice -n __fish_use_subcommand -f -a {} -d {}\n",
                        verb->get_name(), ShellQuoted(verb->get_description()));
    const std::string condition = fmt::format("'__fish_seen_subcommand_from {}'", verb->get_name());
    const std::vector<std::string> positional = PositionalChoices(*verb);
    if (!positional.empty()) {
      text += fmt::format("complete -c sluice -n {} -f -a '{}'\n", condition,
                          fmt::join(positional, " "));
    }
    for (const CLI::Option* option : Options(*verb)) {
      text += fmt::format("complete -c sluice -n {}", condition);
      for (const std::string& name : option->get_lnames()) text += " -l " + name;
      for (const std::string& name : option->get_snames()) text += " -s " + name;
      const std::vector<std::string> choices = Choices(*option);
      if (!choices.empty()) {
        text += fmt::format(" -x -a '{}'", fmt::join(choices, " "));
      } else if (TakesValue(*option)) {
        text += " -r";
      }
      text += " -d " + ShellQuoted(option->get_description()) + "\n";
    }
  }
  return text;
}

}  // namespace sluice
