// Members of a config.json. Private to loaders.
#ifndef SLUICE_LOADERS_HF_FIELDS_H_
#define SLUICE_LOADERS_HF_FIELDS_H_

#include <cstdint>
#include <string>
#include <utility>

#include "formats/status.h"
#include "formats/strict_json.h"

namespace sluice {

// Reads members with defaults (null is absent) and remembers the first error.
class FieldReader {
 public:
  FieldReader(const nlohmann::json& object, std::string prefix)
      : object_(object), prefix_(std::move(prefix)) {}

  const nlohmann::json* Find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  // A member that is there, even as null.
  bool Has(const char* name) const { return object_.contains(name); }

  int64_t Int(const char* name, int64_t fallback) {
    const nlohmann::json* value = Find(name);
    if (value == nullptr) return fallback;
    const bool fits = value->is_number_integer() &&
                      (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
    if (!fits) return Fail(name, "is not a 64-bit integer"), fallback;
    return value->get<int64_t>();
  }

  int64_t RequiredInt(const char* name) {
    if (Find(name) == nullptr) return Fail(name, "is missing"), 0;
    return Int(name, 0);
  }

  double Number(const char* name, double fallback) {
    const nlohmann::json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_number()) return Fail(name, "is not a number"), fallback;
    return value->get<double>();
  }

  double RequiredNumber(const char* name) {
    if (Find(name) == nullptr) return Fail(name, "is missing"), 0;
    return Number(name, 0);
  }

  bool Bool(const char* name, bool fallback) {
    const nlohmann::json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return Fail(name, "is not true or false"), fallback;
    return value->get<bool>();
  }

  std::string String(const char* name, const char* fallback) {
    const nlohmann::json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_string()) return Fail(name, "is not a string"), fallback;
    return value->get<std::string>();
  }

  void Fail(const char* name, const std::string& problem) {
    Fail(Status(ErrorCode::kCorrupt, prefix_ + name + " " + problem));
  }
  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Status& status() const { return status_; }

 private:
  const nlohmann::json& object_;
  std::string prefix_;
  Status status_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_HF_FIELDS_H_
