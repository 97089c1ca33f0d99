// sluice version
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tools/cli.h"
#include "tools/option_kinds.h"
#include "tools/output.h"
#include "tools/version.h"

namespace sluice {
namespace {

Status PrintVersion(bool json) {
  if (!json) return WriteStdout(VersionLine() + "\n");
  const nlohmann::ordered_json object = {{"version", Version()}, {"compiler", __VERSION__}};
  return WriteStdout(object.dump(2) + "\n");
}

}  // namespace

void AddVersionVerb(Cli* cli) {
  auto json = std::make_shared<bool>(false);
  CLI::App* verb = cli->AddVerb("version", "Prints the version", "  sluice version --json\n",
                                [json] { return PrintVersion(*json); });
  AddFlag(verb, "--json", json.get(), "As a JSON object");
}

}  // namespace sluice
