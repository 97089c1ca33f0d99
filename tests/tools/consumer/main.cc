#include <sluice/engine.h>

#include <cstdio>

int main() {
  sluice::EngineOptions options;
  options.model_path = "/no/such/model";
  const auto engine = sluice::Engine::Open(options);
  std::puts(sluice::ErrorCodeName(engine.status().code()));
  return engine.status().code() == sluice::ErrorCode::kNotFound ? 0 : 1;
}
