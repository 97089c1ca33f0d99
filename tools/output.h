// Results on stdout, everything else on stderr, and how figures are written for people.
#ifndef SLUICE_TOOLS_OUTPUT_H_
#define SLUICE_TOOLS_OUTPUT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "formats/status.h"

namespace sluice {

// Makes closed standard descriptors fail on use instead of naming the next file that is opened, and
// a closed pipe an error value instead of a signal. Called once, before anything is opened.
void PrepareStandardStreams();

// Writes all of `text` to stdout at once, without a buffer. Error: kIo (full disk, closed pipe).
Status WriteStdout(std::string_view text);
// Whether WriteStdout failed since who reads has seen enough (`| head -1`): nobody wants to be
// told.
bool StdoutReaderIsGone();
// The last word of the operating system on what was written. Error: kIo.
Status CloseStdout();

// One line on stderr; its failure is nobody's business.
void PrintLine(std::string_view line);

// Whether stderr is a terminal that understands control sequences.
bool StderrIsTerminal();
bool StdinIsTerminal();
bool StdoutIsTerminal();

// Control characters replaced, so that a message cannot forge another line.
std::string OnOneLine(std::string_view text);

// "1.25 GiB", "17.0 MiB", "312 bytes".
std::string FormatBytes(uint64_t bytes);
// "1:02:03", "0:12".
std::string FormatDuration(double seconds);
// A tensor's or token's text for a table: control characters as \xNN.
std::string Printable(std::string_view text);

// All of a file, or of standard input. Errors: kNotFound, kIo, kLimitExceeded above 1 GiB,
// kCancelled after Ctrl-C.
Result<std::string> ReadInputFile(const std::string& path);
Result<std::string> ReadStdin();

}  // namespace sluice

#endif  // SLUICE_TOOLS_OUTPUT_H_
