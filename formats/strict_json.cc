#include "formats/strict_json.h"

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "formats/quote.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// What the tree may take: with the parser's own copies of one token less than 16 times the text and
// 64 KiB.
constexpr size_t kTreeBytesPerByte = 9;
constexpr size_t kTreeBytes = 40 << 10;
// An element of an array while the array grows, the old and the new block; a member of an object
// with its node; the string or container that a value points to.
constexpr size_t kElementBytes = 3 * sizeof(Json);
constexpr size_t kMemberBytes = 32 + sizeof(std::pair<const std::string, Json>);
constexpr size_t kPointedBytes = 48;

// Builds the value tree. A handler of events (and not the tree's own parser) because only an event
// handler can stop at a limit.
class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(std::string_view text, size_t max_depth, size_t max_values)
      : max_depth_(max_depth),
        values_left_(max_values),
        bytes_left_(kTreeBytesPerByte * text.size() + kTreeBytes) {}

  Json TakeRoot() { return std::move(root_); }
  const Status& status() const { return status_; }

  bool null() override { return Add(nullptr) != nullptr; }
  bool boolean(bool value) override { return Add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return Add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return Add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return Add(value) != nullptr;
  }
  bool string(string_t& value) override {
    return Charge(kPointedBytes + value.size()) && Add(std::move(value)) != nullptr;
  }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(size_t /*count*/) override { return Open(Json::object()); }
  bool start_array(size_t /*count*/) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (!Charge(kMemberBytes + name.size())) return false;
    const auto [member, inserted] =
        open_.back()->get_ref<Json::object_t&>().try_emplace(std::move(name), nullptr);
    slot_ = &member->second;
    if (inserted) return true;
    status_ = Status(ErrorCode::kCorrupt, "JSON key " + Quoted(member->first) + " appears twice");
    return false;
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    status_ =
        Status(ErrorCode::kCorrupt, fmt::format("not valid UTF-8 JSON near byte {}", position));
    return false;
  }

 private:
  bool Charge(size_t bytes) {
    if (bytes > bytes_left_) {
      status_ = Status(ErrorCode::kLimitExceeded, "JSON with too many values for its size");
      return false;
    }
    bytes_left_ -= bytes;
    return true;
  }

  Json* Add(Json value) {
    if (values_left_ == 0) {
      status_ = Status(ErrorCode::kLimitExceeded, "JSON with too many values");
      return nullptr;
    }
    --values_left_;
    if (open_.empty()) return &(root_ = std::move(value));
    Json& parent = *open_.back();
    if (parent.is_object()) return &(*slot_ = std::move(value));
    if (!Charge(kElementBytes)) return nullptr;
    parent.get_ref<Json::array_t&>().push_back(std::move(value));
    return &parent.back();
  }

  bool Open(Json value) {
    if (open_.size() >= max_depth_) {
      status_ = Status(ErrorCode::kLimitExceeded,
                       fmt::format("JSON nested deeper than {} levels", max_depth_));
      return false;
    }
    if (!Charge(kPointedBytes)) return false;
    Json* added = Add(std::move(value));
    if (added == nullptr) return false;
    open_.push_back(added);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  size_t max_depth_;
  size_t values_left_;
  size_t bytes_left_;
  Json root_;
  std::vector<Json*> open_;  // containers not closed yet; only the innermost one grows
  Json* slot_ = nullptr;     // where the value of the last key goes
  Status status_;
};

}  // namespace

Result<Json> ParseStrictJson(std::string_view text, size_t max_depth, size_t max_values) {
  TreeBuilder builder(text, max_depth, max_values);
  if (!Json::sax_parse(text, &builder)) {
    return builder.status().ok() ? Status(ErrorCode::kCorrupt, "not valid JSON") : builder.status();
  }
  return builder.TakeRoot();
}

}  // namespace sluice
