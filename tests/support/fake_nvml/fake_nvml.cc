// NVIDIA's management library as far as offload/gpu_probe asks it, for tests: a shared library of
// that name. What it says stands in the variable FAKE_NVML:
//   DRIVER|CUDA;NAME|TOTAL|FREE|MAJOR|MINOR|GENERATION|WIDTH;...       one part for each GPU
// A field that is empty makes the call for it fail; without the variable nvmlInit fails.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr int kSuccess = 0;
constexpr int kFailure = 999;

struct Memory {
  unsigned long long total, free, used;
};

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// Field `field` of part `part`; empty if it is not there.
std::string Field(size_t part, size_t field) {
  const char* const text = std::getenv("FAKE_NVML");
  const std::vector<std::string> parts = Split(text == nullptr ? "" : text, ';');
  if (part >= parts.size()) return "";
  const std::vector<std::string> fields = Split(parts[part], '|');
  return field < fields.size() ? fields[field] : "";
}

size_t PartOf(void* device) { return reinterpret_cast<size_t>(device); }

int CopyText(const std::string& from, char* to, unsigned size) {
  if (from.empty()) return kFailure;
  std::strncpy(to, from.c_str(), size);  // as long as it fits, without a 0 then
  return kSuccess;
}

template <typename T>
int CopyNumber(const std::string& from, T* to) {
  if (from.empty()) return kFailure;
  *to = static_cast<T>(std::strtoull(from.c_str(), nullptr, 10));
  return kSuccess;
}

}  // namespace

extern "C" {

int nvmlInit_v2() { return std::getenv("FAKE_NVML") == nullptr ? kFailure : kSuccess; }
int nvmlShutdown() { return kSuccess; }

int nvmlSystemGetDriverVersion(char* version, unsigned size) {
  return CopyText(Field(0, 0), version, size);
}
int nvmlSystemGetCudaDriverVersion_v2(int* version) { return CopyNumber(Field(0, 1), version); }

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 0;
  while (!Field(*count + 1, 0).empty()) ++*count;
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = reinterpret_cast<void*>(static_cast<size_t>(index) + 1);
  return kSuccess;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  *device = reinterpret_cast<void*>(size_t{1});
  return std::strcmp(id, "0000:01:00.0") == 0 ? kSuccess : kFailure;
}

int nvmlDeviceGetName(void* device, char* name, unsigned size) {
  return CopyText(Field(PartOf(device), 0), name, size);
}
int nvmlDeviceGetMemoryInfo(void* device, Memory* memory) {
  if (CopyNumber(Field(PartOf(device), 1), &memory->total) != kSuccess) return kFailure;
  return CopyNumber(Field(PartOf(device), 2), &memory->free);
}
int nvmlDeviceGetCudaComputeCapability(void* device, int* major, int* minor) {
  if (CopyNumber(Field(PartOf(device), 3), major) != kSuccess) return kFailure;
  return CopyNumber(Field(PartOf(device), 4), minor);
}
int nvmlDeviceGetCurrPcieLinkGeneration(void* device, unsigned* generation) {
  return CopyNumber(Field(PartOf(device), 5), generation);
}
int nvmlDeviceGetCurrPcieLinkWidth(void* device, unsigned* width) {
  return CopyNumber(Field(PartOf(device), 6), width);
}

}  // extern "C"
