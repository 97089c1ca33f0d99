#include "loaders/convert.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "formats/sluice_writer.h"
#include "loaders/architecture.h"
#include "loaders/checkpoint.h"
#include "loaders/convert_pipeline.h"
#include "loaders/quantizer.h"
#include "loaders/weight_plan.h"

namespace sluice {
namespace {

// Raised when the same source and options would give other bytes than before, so that no file is
// begun by one version and finished by another.
constexpr uint64_t kRevision = 1;

std::string Provenance(const Checkpoint& checkpoint) {
  nlohmann::ordered_json json;
  json["source"] = checkpoint.description();
  json["writer"] = "sluice";
  // Texts from a checkpoint need not be UTF-8.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// Whether the same conversion can succeed later.
bool CanPass(ErrorCode code) {
  return code == ErrorCode::kIo || code == ErrorCode::kCancelled || code == ErrorCode::kOutOfMemory;
}

}  // namespace

Result<ConvertReport> ConvertCheckpoint(const std::string& source_path,
                                        const std::string& output_path,
                                        const ConvertOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Result<Checkpoint> checkpoint = Checkpoint::Open(source_path);
  if (!checkpoint.ok()) return checkpoint.status();
  Result<ModelDescription> description = DescribeModel(checkpoint->config());
  if (!description.ok()) return description.status().WithContext(source_path);
  SluiceContents contents;
  contents.config = checkpoint->config();
  contents.tokenizer_json = checkpoint->tokenizer_json();
  contents.chat_template = checkpoint->chat_template();
  contents.provenance_json = Provenance(*checkpoint);
  contents.groups = PlanWeights(*description, options.quantization, [&](const std::string& name) {
    return TypeThatKeeps(*checkpoint->Find(name));
  });
  Result<uint64_t> identity = checkpoint->Identity();
  if (!identity.ok()) return identity.status();
  WriterOptions writer_options;
  writer_options.resume = options.resume;
  writer_options.source_identity = *identity + kRevision;
  writer_options.files = options.files;
  Result<std::unique_ptr<SluiceWriter>> writer =
      SluiceWriter::Create(output_path, contents, writer_options);
  if (!writer.ok()) return writer.status();
  Result<ConvertBuffers> buffers = PlanConvertBuffers(*checkpoint, **writer, options);
  if (!buffers.ok()) return buffers.status();
  Status status = ConvertPieces(*checkpoint, writer->get(), options, *buffers);
  if (status.code() == ErrorCode::kCorrupt || status.code() == ErrorCode::kUnsupported) {
    status = status.WithContext(source_path);
  }
  if (status.ok()) status = (*writer)->Finish();
  if (!status.ok()) {
    if (!CanPass(status.code())) return status;
    (*writer)->Keep();
    return Status(status.code(), status.message() + "; what is done is kept: --resume goes on");
  }
  ConvertReport report;
  report.source_bytes = checkpoint->size_bytes();
  report.file_bytes = (*writer)->file_size_bytes();
  report.tensors = checkpoint->tensors().size();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.description = checkpoint->description();
  return report;
}

}  // namespace sluice
