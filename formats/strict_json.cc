#include "formats/strict_json.h"

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "formats/quote.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Builds the value tree. A handler of events (and not the tree's own parser) because only an event
// handler can stop at a limit.
class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  TreeBuilder(size_t max_depth, size_t max_values)
      : max_depth_(max_depth), values_left_(max_values) {}

  Json TakeRoot() { return std::move(root_); }
  const Status& status() const { return status_; }

  bool null() override { return Add(nullptr) != nullptr; }
  bool boolean(bool value) override { return Add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return Add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return Add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return Add(value) != nullptr;
  }
  bool string(string_t& value) override { return Add(std::move(value)) != nullptr; }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(size_t /*count*/) override { return Open(Json::object()); }
  bool start_array(size_t /*count*/) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
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
  Json* Add(Json value) {
    if (values_left_ == 0) {
      status_ = Status(ErrorCode::kLimitExceeded, "JSON with too many values");
      return nullptr;
    }
    --values_left_;
    if (open_.empty()) return &(root_ = std::move(value));
    Json& parent = *open_.back();
    if (parent.is_object()) return &(*slot_ = std::move(value));
    parent.get_ref<Json::array_t&>().push_back(std::move(value));
    return &parent.back();
  }

  bool Open(Json value) {
    if (open_.size() >= max_depth_) {
      status_ = Status(ErrorCode::kLimitExceeded,
                       fmt::format("JSON nested deeper than {} levels", max_depth_));
      return false;
    }
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
  Json root_;
  std::vector<Json*> open_;  // containers not closed yet; only the innermost one grows
  Json* slot_ = nullptr;     // where the value of the last key goes
  Status status_;
};

}  // namespace

Result<Json> ParseStrictJson(std::string_view text, size_t max_depth, size_t max_values) {
  TreeBuilder builder(max_depth, max_values);
  if (!Json::sax_parse(text, &builder)) {
    return builder.status().ok() ? Status(ErrorCode::kCorrupt, "not valid JSON") : builder.status();
  }
  return builder.TakeRoot();
}

}  // namespace sluice
