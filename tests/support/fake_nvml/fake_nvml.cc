// NVIDIA's management library as far as offload/gpu_probe asks it, for tests: a shared library of
// that name. What it says stands in the variable FAKE_NVML:
//   DRIVER|CUDA;NAME|TOTAL|FREE|MAJOR|MINOR|GENERATION|WIDTH|UUID;...  one part for each GPU
// A field that is empty makes the call for it fail; without the variable nvmlInit fails. Addresses
// of the GPUs are 0000:01:00.0, 0000:02:00.0 and so on. A part with a UUID that begins with MIG- is
// an instance of a GPU: found by that alone, it is not counted, and comes after those that are.
#include <cstdio>
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
struct PciInfo {
  char short_address[16];
  unsigned domain, bus, device, ids, subsystem_ids;
  char address[32];
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

bool IsInstance(size_t part) { return Field(part, 7).rfind("MIG-", 0) == 0; }

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
  while (!Field(*count + 1, 0).empty() && !IsInstance(*count + 1)) ++*count;
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = reinterpret_cast<void*>(static_cast<size_t>(index) + 1);
  return kSuccess;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* id, void** device) {
  unsigned domain = 0;
  unsigned bus = 0;
  if (std::sscanf(id, "%x:%x:00.0", &domain, &bus) != 2) return kFailure;
  *device = reinterpret_cast<void*>(size_t{bus});
  return domain == 0 && !Field(bus, 0).empty() && !IsInstance(bus) ? kSuccess : kFailure;
}
int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  for (size_t part = 1; !Field(part, 0).empty(); ++part) {
    *device = reinterpret_cast<void*>(part);
    if (Field(part, 7) == uuid) return kSuccess;
  }
  return kFailure;
}
int nvmlDeviceGetIndex(void* device, unsigned* index) {
  *index = static_cast<unsigned>(PartOf(device)) - 1;
  return kSuccess;
}
int nvmlDeviceGetPciInfo_v3(void* device, PciInfo* info) {
  *info = {};
  std::snprintf(info->address, sizeof(info->address), "%08X:%02X:00.0", 0u,
                static_cast<unsigned>(PartOf(device)));
  return kSuccess;
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
