#include "tools/source_files.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>

#include "formats/gguf_set.h"
#include "formats/mapped_file.h"
#include "formats/sluice_file.h"
#include "tools/interrupt.h"
#include "tools/progress.h"
#include "tools/version.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kReadBytes = 8 << 20;

// What conversions read in a directory. Others, pictures and weights in other forms, do not matter.
constexpr std::string_view kExtensions[] = {".json", ".jinja", ".model", ".safetensors"};

constexpr char kMoreTemplates[] = "additional_chat_templates";

uint64_t HashText(const std::string& text) {
  return HashBytes(std::as_bytes(std::span<const char>(text)));
}

bool IsGguf(const std::string& name) { return fs::path(name).extension() == ".gguf"; }

// Appends the files of a directory that matter, with `prefix` before their names. A link that leads
// nowhere is none: whether it is needed is for the reader of the checkpoint to say.
Status AddNames(const fs::path& directory, const std::string& prefix,
                std::vector<std::string>* names) {
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string extension = it->path().extension().string();
    const bool matters = std::find(std::begin(kExtensions), std::end(kExtensions), extension) !=
                         std::end(kExtensions);
    std::error_code absent;
    if (matters && it->is_regular_file(absent)) {
      names->push_back(prefix + it->path().filename().string());
    }
  }
  if (error) return Status(ErrorCode::kIo, directory.string() + ": " + error.message());
  return Status();
}

// Adds the hashes of a file's parts to `text`.
Status AddContent(const ReadOnlyFile& file, std::span<std::byte> buffer, uint64_t* done_bytes,
                  uint64_t total_bytes, Progress* bar, std::string* text) {
  for (uint64_t begin = 0; begin < file.size_bytes(); begin += buffer.size()) {
    if (Interrupted()) return InterruptedStatus();
    const auto part = buffer.first(std::min<uint64_t>(buffer.size(), file.size_bytes() - begin));
    if (Status s = file.ReadOnce(begin, part); !s.ok()) return s;
    *text += fmt::format("{:016x}", HashBytes(part));
    *done_bytes += part.size();
    bar->Update(*done_bytes, total_bytes, fs::path(file.name()).filename().string());
  }
  return Status();
}

}  // namespace

Result<SourceFiles> SourceFilesOf(const std::string& source) {
  std::error_code error;
  const fs::path path = fs::canonical(source, error);
  if (error) return Status(ErrorCode::kNotFound, source + ": " + error.message());
  SourceFiles files;
  if (!fs::is_directory(path, error)) {
    files.directory = path.parent_path().string();
    for (const std::string& shard : GgufShardPaths(path.string())) {
      files.names.push_back(fs::path(shard).filename().string());
    }
    return files;
  }
  files.directory = path.string();
  if (Status s = AddNames(path, "", &files.names); !s.ok()) return s;
  if (fs::is_directory(path / kMoreTemplates, error)) {
    Status s = AddNames(path / kMoreTemplates, std::string(kMoreTemplates) + "/", &files.names);
    if (!s.ok()) return s;
  }
  std::sort(files.names.begin(), files.names.end());
  return files;
}

Result<uint64_t> IdentityOf(const SourceFiles& files) {
  std::string identity = "sluice " + Version() + '\0' + files.directory;
  for (const std::string& name : files.names) {
    struct stat info {};
    const std::string path = files.directory + "/" + name;
    if (stat(path.c_str(), &info) != 0) {
      return Status(ErrorCode::kIo, fmt::format("stat {}: {}", path, std::strerror(errno)));
    }
    identity += fmt::format("\n{} {} {} {}.{:09}", name, info.st_ino, info.st_size,
                            info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
  }
  return HashText(identity);
}

Result<uint64_t> ContentOf(const SourceFiles& files, bool quiet) {
  std::vector<std::unique_ptr<ReadOnlyFile>> opened;
  uint64_t total_bytes = 0, done_bytes = 0;
  for (const std::string& name : files.names) {
    Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(files.directory + "/" + name);
    if (!file.ok()) return file.status();
    total_bytes += (*file)->size_bytes();
    opened.push_back(*std::move(file));
  }
  Progress bar("reading", Progress::Unit::kBytes, quiet);
  std::vector<std::byte> buffer(std::min(kReadBytes, std::max<uint64_t>(total_bytes, 1)));
  std::string text = "sluice " + Version();
  for (size_t i = 0; i < opened.size(); ++i) {
    text += fmt::format("\n{} {} ", IsGguf(files.names[i]) ? "" : files.names[i],
                        opened[i]->size_bytes());
    Status s = AddContent(*opened[i], buffer, &done_bytes, total_bytes, &bar, &text);
    if (!s.ok()) return s;
  }
  return HashText(text);
}

}  // namespace sluice
