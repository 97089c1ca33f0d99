// sluice inspect: what is in a model's file.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "tools/catalogue.h"
#include "tools/cli.h"
#include "tools/option_kinds.h"
#include "tools/output.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string file;
  bool json = false;
  bool tensors = false;
};

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string CatalogueJson(const Catalogue& catalogue) {
  Json json = catalogue.facts;
  json["tensors"] = Json::array();
  for (const CatalogueTensor& tensor : catalogue.tensors) {
    json["tensors"].push_back({{"name", tensor.name},
                               {"type", tensor.type},
                               {"shape", tensor.shape},
                               {"offset_bytes", tensor.offset_bytes},
                               {"size_bytes", tensor.size_bytes}});
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string FactText(const std::string& key, const Json& value) {
  const bool is_size = key.size() > 6 && key.compare(key.size() - 6, 6, "_bytes") == 0;
  if (is_size) {
    return fmt::format("{} ({})", value.dump(), FormatBytes(value.get<uint64_t>()));
  }
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return Printable(value.get<std::string>());
  return Printable(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// Groups of one kind are one line: a large model has hundreds.
std::string GroupsText(const Json& groups) {
  std::map<std::string, std::pair<size_t, uint64_t>> kinds;  // number, bytes
  for (const Json& group : groups) {
    auto& [number, bytes] = kinds[group["kind"].get<std::string>()];
    ++number;
    bytes += group["size_bytes"].get<uint64_t>();
  }
  std::string text = fmt::format("groups: {}\n", groups.size());
  for (const auto& [kind, sum] : kinds) {
    text += fmt::format("  {:<12} {:>6}  {}\n", kind, sum.first, FormatBytes(sum.second));
  }
  return text;
}

std::string CatalogueText(const Catalogue& catalogue, bool tensors) {
  std::string text;
  for (const auto& [key, value] : catalogue.facts.items()) {
    if (key == "groups") {
      text += GroupsText(value);
    } else if (value.is_object()) {
      text += key + ":\n";
      for (const auto& [name, field] : value.items()) {
        text += fmt::format("  {}: {}\n", Printable(name), FactText(name, field));
      }
    } else {
      text += fmt::format("{}: {}\n", key, FactText(key, value));
    }
  }
  std::map<std::string, std::pair<size_t, uint64_t>> types;  // number, bytes
  for (const CatalogueTensor& tensor : catalogue.tensors) {
    ++types[tensor.type].first;
    types[tensor.type].second += tensor.size_bytes;
  }
  text += fmt::format("tensors: {}\n", catalogue.tensors.size());
  for (const auto& [type, sum] : types) {
    text += fmt::format("  {:<16} {:>6}  {}\n", type, sum.first, FormatBytes(sum.second));
  }
  if (!tensors) return text;
  for (const CatalogueTensor& tensor : catalogue.tensors) {
    text +=
        fmt::format("{:<48} {:<16} {:<20} {:>12} bytes at {}\n", Printable(tensor.name),
                    tensor.type, ShapeText(tensor.shape), tensor.size_bytes, tensor.offset_bytes);
  }
  return text;
}

Status Inspect(const Options& options) {
  Result<Catalogue> catalogue = ReadCatalogue(options.file);
  if (!catalogue.ok()) return catalogue.status();
  return WriteStdout(options.json ? CatalogueJson(*catalogue)
                                  : CatalogueText(*catalogue, options.tensors));
}

}  // namespace

void AddInspectVerb(Cli* cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      cli->AddVerb("inspect", "Shows what is in a model's file: configuration, sizes, tensors",
                   "  sluice inspect model.sluice\n"
                   "  sluice inspect model.gguf --tensors\n"
                   "  sluice inspect ./Llama-3.2-1B-Instruct --json | jq .config\n",
                   [options] { return Inspect(*options); });
  AddTextOption(verb, "FILE", &options->file,
                "A .sluice, GGUF or safetensors file, or a Hugging Face directory")
      .Required();
  AddFlag(verb, "--json", &options->json, "As a JSON object, with all tensors");
  AddFlag(verb, "--tensors", &options->tensors, "Each tensor on a line");
}

}  // namespace sluice
