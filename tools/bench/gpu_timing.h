// Memory for gpu_bench and the time of work on the GPU. What fails ends the program.
#ifndef SLUICE_TOOLS_BENCH_GPU_TIMING_H_
#define SLUICE_TOOLS_BENCH_GPU_TIMING_H_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace sluice {

inline constexpr int kRepeats = 5;  // the median counts

inline void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "gpu_bench: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Memory for the whole run.
template <typename T>
T* Allocate(int64_t count, int fill) {
  void* data = nullptr;
  Check(cudaMalloc(&data, static_cast<size_t>(count) * sizeof(T)), "memory");
  Check(cudaMemset(data, fill, static_cast<size_t>(count) * sizeof(T)), "filling memory");
  return static_cast<T*>(data);
}

// Random halves below 2, as real weights and caches are: constant bytes would take less power, and
// the clock of a GPU rises with that.
static __global__ void FillKernel(uint32_t* words, int64_t count) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += threads) {
    uint32_t word = static_cast<uint32_t>(i) * 0x9e3779b9u;
    word = (word ^ word >> 16) * 0x85ebca6bu;
    words[i] = (word ^ word >> 13) & 0xbfffbfffu;
  }
}

template <typename T>
T* AllocateRandom(int64_t count) {
  const int64_t words = (count * static_cast<int64_t>(sizeof(T)) + 3) / 4;
  auto* data = Allocate<uint32_t>(words, 0);
  FillKernel<<<1024, 256>>>(data, words);
  Check(cudaDeviceSynchronize(), "filling memory");
  return reinterpret_cast<T*>(data);
}

// Seconds of one call: `calls` of them, recorded once into a graph, the median of some launches.
inline double Seconds(int calls, const std::function<void(int, cudaStream_t)>& call) {
  cudaStream_t stream = nullptr;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t launch = nullptr;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  Check(cudaEventCreate(&begin), "an event");
  Check(cudaEventCreate(&end), "an event");
  call(0, stream);
  Check(cudaStreamSynchronize(stream), "the first call");
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "a graph");
  for (int i = 0; i < calls; ++i) call(i, stream);
  Check(cudaStreamEndCapture(stream, &graph), "a graph");
  Check(cudaGraphInstantiate(&launch, graph, 0), "a graph");
  std::vector<float> all;
  for (int i = 0; i < kRepeats + 1; ++i) {  // the first warms up
    float milliseconds = 0;
    Check(cudaEventRecord(begin, stream), "an event");
    Check(cudaGraphLaunch(launch, stream), "a graph");
    Check(cudaEventRecord(end, stream), "an event");
    Check(cudaEventSynchronize(end), "the work of a graph");
    Check(cudaEventElapsedTime(&milliseconds, begin, end), "a time");
    if (i > 0) all.push_back(milliseconds);
  }
  Check(cudaGetLastError(), "starting a kernel");
  cudaGraphExecDestroy(launch);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  std::sort(all.begin(), all.end());
  return double{all[all.size() / 2]} / 1e3 / calls;
}

}  // namespace sluice

#endif  // SLUICE_TOOLS_BENCH_GPU_TIMING_H_
