// sluice chat: a conversation.
#include <memory>

#include "tools/chat_session.h"
#include "tools/cli.h"
#include "tools/exit_code.h"
#include "tools/interrupt.h"
#include "tools/line_reader.h"
#include "tools/model_cache.h"
#include "tools/open_model.h"
#include "tools/options.h"
#include "tools/output.h"

namespace sluice {
namespace {

constexpr char kQuotes[] = "\"\"\"";

struct ChatOptions {
  ModelOptions model;
  GenerationOptions generation;
  std::string system;
};

bool EndsWithQuotes(const std::string& text) {
  return text.size() >= 3 && text.compare(text.size() - 3, 3, kQuotes) == 0;
}

// One message: a line, or all between """ and """.
Result<LineReader::Event> ReadMessage(LineReader* reader, std::string* message) {
  Result<LineReader::Event> event = reader->Read("> ", message);
  if (!event.ok() || *event != LineReader::Event::kLine || message->rfind(kQuotes, 0) != 0) {
    return event;
  }
  *message = message->substr(3);
  while (!EndsWithQuotes(*message)) {
    std::string line;
    event = reader->Read(". ", &line);
    if (!event.ok() || *event != LineReader::Event::kLine) return event;
    *message += "\n" + line;
  }
  message->resize(message->size() - 3);
  return event;
}

Status Converse(ChatSession* session, LineReader* reader) {
  const bool interactive = StdinIsTerminal();
  bool interrupted = false;  // by the last thing the user did
  while (!session->ended()) {
    std::string message;
    Result<LineReader::Event> event = ReadMessage(reader, &message);
    if (!event.ok()) return event.status();
    if (*event == LineReader::Event::kEnd) return Status();
    if (*event == LineReader::Event::kInterrupt) {
      if (interrupted || !interactive) return InterruptedStatus();
      interrupted = true;
      ClearInterrupt();
      PrintLine("[Ctrl-C again, Ctrl-D or /bye leaves]");
      continue;
    }
    const Status status = session->Handle(message);
    if (!session->output_status().ok()) return session->output_status();
    if (!interactive && Interrupted()) return InterruptedStatus();
    interrupted = Interrupted();
    ClearInterrupt();
    if (status.ok()) continue;
    if (!interactive) return status;
    ReportStatus(status);
  }
  return Status();
}

Status Chat(ChatOptions options) {
  if (Status s = options.generation.Resolve(); !s.ok()) return s;
  Result<std::unique_ptr<Engine>> engine = OpenModel(options.model);
  if (!engine.ok()) return engine.status();
  if (!(*engine)->info().has_chat_template) {
    return Status(ErrorCode::kUnsupported,
                  options.model.model + " has no chat template; sluice run completes a text");
  }
  std::string history_file;
  // A conversation needs no history file.
  if (Result<std::string> cache = CacheDirectory(); cache.ok()) {
    history_file = *cache + "/chat_history";
  }
  if (StdinIsTerminal() && !options.model.quiet) {
    PrintLine("/help lists the commands; /bye leaves");
  }
  const std::unique_ptr<LineReader> reader = MakeLineReader(history_file);
  ChatSession session(engine->get(), options.generation, options.system, options.model.quiet);
  if (Status s = Converse(&session, reader.get()); !s.ok()) return s;
  return WriteTraceIfWanted(options.model, **engine);
}

}  // namespace

void AddChatVerb(Cli* cli) {
  auto options = std::make_shared<ChatOptions>();
  CLI::App* verb =
      cli->AddVerb("chat", "Holds a conversation",
                   "  sluice chat model.sluice\n"
                   "  sluice chat model.sluice --system 'Answer in verse.' --ctx 4096\n",
                   [options] { return Chat(*options); });
  AddModelOptions(verb, &options->model, "Context length (default: the model's own, at most 8192)");
  AddTextOption(verb, "--system", &options->system, "The system message").Type("TEXT");
  AddGenerationOptions(verb, &options->generation);
}

}  // namespace sluice
