#include "loaders/convert.h"

#include <fmt/format.h>
#include <unistd.h>

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
constexpr uint64_t kRevision = 2;

std::string Provenance(const Checkpoint& checkpoint) {
  nlohmann::ordered_json json;
  json["source"] = checkpoint.description();
  json["writer"] = "sluice";
  // Texts from a checkpoint need not be UTF-8.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

SluiceContents ContentsOf(const Checkpoint& checkpoint, const ModelDescription& description,
                          const QuantizationPlan& plan) {
  SluiceContents contents;
  contents.config = checkpoint.config();
  contents.tokenizer_json = checkpoint.tokenizer_json();
  contents.chat_template = checkpoint.chat_template();
  contents.provenance_json = Provenance(checkpoint);
  contents.groups = PlanWeights(description, plan, [&](const std::string& name) {
    return TypeThatKeeps(*checkpoint.Find(name));
  });
  return contents;
}

// Whether the conversion was finished by a run that could not say so any more.
Result<bool> IsFinished(const std::string& output_path, const SluiceContents& contents,
                        const WriterOptions& writer_options, const ConvertOptions& options) {
  if (access(output_path.c_str(), F_OK) != 0) return false;
  if (options.resume) {
    Result<bool> finished = SluiceWriter::RecognizeFinished(output_path, contents, writer_options);
    if (!finished.ok() || *finished) return finished;
  }
  if (!options.keep_existing) return false;
  return Status(ErrorCode::kInvalidArgument,
                output_path + " is there already; --force replaces it");
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
  Result<Checkpoint> checkpoint = Checkpoint::Open(source_path, options.max_ram_bytes);
  if (checkpoint.status().code() == ErrorCode::kDoesNotFit) {
    return Status(ErrorCode::kDoesNotFit, checkpoint.status().message() + " by --max-ram");
  }
  if (!checkpoint.ok()) return checkpoint.status();
  Result<ModelDescription> description = DescribeModel(checkpoint->config());
  if (!description.ok()) return description.status().WithContext(source_path);
  const SluiceContents contents = ContentsOf(*checkpoint, *description, options.quantization);
  Result<uint64_t> identity = checkpoint->Identity();
  if (!identity.ok()) return identity.status();
  WriterOptions writer_options;
  writer_options.resume = options.resume;
  writer_options.source_identity = *identity + kRevision;
  writer_options.files = options.files;
  ConvertReport report;
  report.source_bytes = checkpoint->size_bytes();
  report.tensors = checkpoint->tensors().size();
  report.description = checkpoint->description();
  const Result<bool> finished = IsFinished(output_path, contents, writer_options, options);
  if (!finished.ok()) return finished.status();
  report.was_finished = *finished;
  if (report.was_finished) return report;
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
    return Status(status.code(),
                  status.message() + "; what is done is kept: " + options.how_to_go_on);
  }
  report.file_bytes = (*writer)->file_size_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace sluice
