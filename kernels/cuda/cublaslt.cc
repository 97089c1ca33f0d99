#include "kernels/cuda/cublaslt.h"

#include <dlfcn.h>

#include <array>
#include <map>
#include <utility>

#include "kernels/cuda/cublaslt_abi.h"

namespace sluice {
namespace {

using cublaslt::Algorithm;
using cublaslt::Functions;
using cublaslt::HeuristicResult;

using Library = std::unique_ptr<void, int (*)(void*)>;

// Of w and x, by their contract.
constexpr uint32_t kAlignmentBytes = 16;

std::string LoaderError() {
  const char* const error = dlerror();
  return error == nullptr ? "it cannot be loaded" : error;
}

// Empty, or the name of a function that the library does not have.
std::string FindFunctions(void* library, Functions* functions) {
  std::string missing;
  const auto find = [&]<typename Function>(const char* name, Function* function) {
    *function = reinterpret_cast<Function>(dlsym(library, name));
    if (*function == nullptr && missing.empty()) missing = name;
  };
  find("cublasLtGetVersion", &functions->GetVersion);
  find("cublasLtGetStatusString", &functions->GetStatusString);
  find("cublasLtCreate", &functions->Create);
  find("cublasLtDestroy", &functions->Destroy);
  find("cublasLtMatmulDescCreate", &functions->MatmulDescCreate);
  find("cublasLtMatmulDescSetAttribute", &functions->MatmulDescSetAttribute);
  find("cublasLtMatmulDescDestroy", &functions->MatmulDescDestroy);
  find("cublasLtMatrixLayoutCreate", &functions->MatrixLayoutCreate);
  find("cublasLtMatrixLayoutDestroy", &functions->MatrixLayoutDestroy);
  find("cublasLtMatmulPreferenceCreate", &functions->MatmulPreferenceCreate);
  find("cublasLtMatmulPreferenceSetAttribute", &functions->MatmulPreferenceSetAttribute);
  find("cublasLtMatmulPreferenceDestroy", &functions->MatmulPreferenceDestroy);
  find("cublasLtMatmulAlgoGetHeuristic", &functions->MatmulAlgoGetHeuristic);
  find("cublasLtMatmulAlgoCheck", &functions->MatmulAlgoCheck);
  find("cublasLtMatmul", &functions->Matmul);
  return missing;
}

std::string VersionText(size_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace

class CublasLt::Impl {
 public:
  Impl(Library library, const Functions& functions, const std::string& name)
      : library_(std::move(library)),
        functions_(functions),
        description_("cuBLASLt " + VersionText(functions.GetVersion()) + " (" + name + ")") {}
  ~Impl() {
    if (preference_ != nullptr) functions_.MatmulPreferenceDestroy(preference_);
    if (operation_ != nullptr) functions_.MatmulDescDestroy(operation_);
    if (handle_ != nullptr) functions_.Destroy(handle_);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  const std::string& description() const { return description_; }

  Status Open(std::byte* workspace, uint64_t workspace_bytes, int64_t most_tokens) {
    workspace_ = workspace;
    workspace_bytes_ = workspace_bytes;
    most_tokens_ = most_tokens;
    if (Status s = Check(functions_.Create(&handle_), "its start"); !s.ok()) return s;
    // The library's matrices are in columns, so rows of ours are columns of its: y' = w'^T x'.
    if (Status s = Check(
            functions_.MatmulDescCreate(&operation_, cublaslt::kComputeF32, cublaslt::kRealF32),
            "an operation");
        !s.ok()) {
      return s;
    }
    const int32_t transposed = cublaslt::kTransposed;
    if (Status s = Check(functions_.MatmulDescSetAttribute(operation_, cublaslt::kTransposeA,
                                                           &transposed, sizeof(transposed)),
                         "an operation");
        !s.ok()) {
      return s;
    }
    if (Status s = Check(functions_.MatmulPreferenceCreate(&preference_), "a preference"); !s.ok())
      return s;
    if (Status s = Prefer(cublaslt::kMaxWorkspaceBytes, workspace_bytes_); !s.ok()) return s;
    return Prefer(cublaslt::kReductionSchemeMask, cublaslt::kNoReduction);
  }

  Status Multiply(const F16Product& product, CUstream_st* stream) {
    const Result<Algorithm> algorithm = AlgorithmFor(product);
    if (!algorithm.ok()) return algorithm.status();
    const Result<Matrices> matrices = MakeMatrices(product, product.tokens);
    if (!matrices.ok()) return matrices.status();
    const float alpha = 1;
    const float beta = product.add_to_y ? 1 : 0;
    void* const y = matrices->y.get();
    return Check(functions_.Matmul(handle_, operation_, &alpha, product.w, matrices->w.get(),
                                   product.x, matrices->x.get(), &beta, product.y, y, product.y, y,
                                   &*algorithm, workspace_, workspace_bytes_, stream),
                 Describe(product, product.tokens));
  }

 private:
  using Layout = std::unique_ptr<void, int (*)(void*)>;
  struct Matrices {
    Layout w, x, y;
  };
  // What an algorithm is chosen for, beside the tokens.
  using Shape = std::array<int64_t, 5>;

  Status Check(int status, const std::string& what) const {
    if (status == cublaslt::kSuccess) return Status();
    const ErrorCode code = status == cublaslt::kAllocFailed ? ErrorCode::kOutOfMemory
                           : status == cublaslt::kNotSupported || status == cublaslt::kArchMismatch
                               ? ErrorCode::kUnsupported
                               : ErrorCode::kIo;
    const char* const text = functions_.GetStatusString(status);
    return Status(code, description_ + ": " + what + ": " + (text == nullptr ? "error" : text) +
                            " (" + std::to_string(status) + ")");
  }

  static std::string Describe(const F16Product& product, int64_t tokens) {
    return "a product of " + std::to_string(product.rows) + " x " + std::to_string(product.cols) +
           " with " + std::to_string(tokens) + " tokens";
  }

  template <typename Value>
  Status Prefer(int attribute, const Value& value) {
    return Check(
        functions_.MatmulPreferenceSetAttribute(preference_, attribute, &value, sizeof(value)),
        "a preference");
  }

  Result<Layout> MakeLayout(int type, int64_t rows, int64_t cols, int64_t stride) const {
    void* layout = nullptr;
    const int status = functions_.MatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows),
                                                     static_cast<uint64_t>(cols), stride);
    if (Status s = Check(status, "a matrix"); !s.ok()) return s;
    return Layout(layout, functions_.MatrixLayoutDestroy);
  }

  Result<Matrices> MakeMatrices(const F16Product& p, int64_t tokens) const {
    Result<Layout> w = MakeLayout(cublaslt::kRealF16, p.cols, p.rows, p.w_stride);
    if (!w.ok()) return w.status();
    Result<Layout> x = MakeLayout(cublaslt::kRealF16, p.cols, tokens, p.x_stride);
    if (!x.ok()) return x.status();
    Result<Layout> y = MakeLayout(cublaslt::kRealF32, p.rows, tokens, p.y_stride);
    if (!y.ok()) return y.status();
    return Matrices{std::move(*w), std::move(*x), std::move(*y)};
  }

  // For the shape with most_tokens_ tokens, unless it does not serve fewer.
  Result<Algorithm> AlgorithmFor(const F16Product& p) {
    const Shape shape = {p.rows, p.cols, p.w_stride, p.x_stride, p.y_stride};
    auto found = algorithms_.find(shape);
    if (found == algorithms_.end()) {
      const Result<Algorithm> fastest = Fastest(p, most_tokens_);
      if (!fastest.ok()) return fastest;
      found = algorithms_.emplace(shape, *fastest).first;
    }
    if (p.tokens == most_tokens_) return found->second;
    const Result<Matrices> matrices = MakeMatrices(p, p.tokens);
    if (!matrices.ok()) return matrices.status();
    HeuristicResult result = {};
    void* const y = matrices->y.get();
    const int status = functions_.MatmulAlgoCheck(handle_, operation_, matrices->w.get(),
                                                  matrices->x.get(), y, y, &found->second, &result);
    const bool serves = status == cublaslt::kSuccess && result.workspace_bytes <= workspace_bytes_;
    return serves ? found->second : Fastest(p, p.tokens);
  }

  Result<Algorithm> Fastest(const F16Product& p, int64_t tokens) {
    const Result<Matrices> matrices = MakeMatrices(p, tokens);
    if (!matrices.ok()) return matrices.status();
    // Rows of y that begin anywhere leave its parts no more alignment than those have.
    const uint32_t of_y = p.y_stride % 4 == 0 ? 16 : p.y_stride % 2 == 0 ? 8 : 4;
    for (int attribute = cublaslt::kMinAlignmentBytesOfA;
         attribute <= cublaslt::kMinAlignmentBytesOfD; ++attribute) {
      const bool operand = attribute <= cublaslt::kMinAlignmentBytesOfA + 1;
      if (Status s = Prefer(attribute, operand ? kAlignmentBytes : of_y); !s.ok()) return s;
    }
    HeuristicResult result = {};
    int results = 0;
    void* const y = matrices->y.get();
    const int status =
        functions_.MatmulAlgoGetHeuristic(handle_, operation_, matrices->w.get(), matrices->x.get(),
                                          y, y, preference_, 1, &result, &results);
    const int state = status != cublaslt::kSuccess ? status
                      : results < 1                ? cublaslt::kNotSupported
                                                   : result.state;
    if (Status s = Check(state, "an algorithm for " + Describe(p, tokens)); !s.ok()) return s;
    return result.algorithm;
  }

  Library library_;  // ends last
  const Functions functions_;
  const std::string description_;
  void* handle_ = nullptr;
  void* operation_ = nullptr;
  void* preference_ = nullptr;
  std::byte* workspace_ = nullptr;
  uint64_t workspace_bytes_ = 0;
  int64_t most_tokens_ = 0;
  std::map<Shape, Algorithm> algorithms_;
};

CublasLt::CublasLt(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CublasLt::CublasLt(CublasLt&& other) noexcept = default;
CublasLt& CublasLt::operator=(CublasLt&& other) noexcept = default;
CublasLt::~CublasLt() = default;

std::vector<std::string> CublasLt::Libraries() {
  return {"libcublasLt.so.13", "libcublasLt.so.12"};
}

Result<CublasLt> CublasLt::Load(std::span<const std::string> libraries) {
  std::string reasons;
  for (const std::string& name : libraries) {
    Library library(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL), dlclose);
    std::string reason;
    if (library == nullptr) {
      reason = LoaderError();
    } else {
      Functions functions = {};
      const std::string missing = FindFunctions(library.get(), &functions);
      if (missing.empty()) {
        return CublasLt(std::make_unique<Impl>(std::move(library), functions, name));
      }
      reason = name + " has no " + missing;
    }
    reasons += (reasons.empty() ? "" : "; ") + reason;
  }
  return Status(ErrorCode::kUnsupported, "there is no cuBLASLt: " + reasons);
}

const std::string& CublasLt::description() const { return impl_->description(); }

Status CublasLt::Open(std::byte* workspace, uint64_t workspace_bytes, int64_t most_tokens) {
  return impl_->Open(workspace, workspace_bytes, most_tokens);
}

Status CublasLt::Multiply(const F16Product& product, CUstream_st* stream) {
  return impl_->Multiply(product, stream);
}

}  // namespace sluice
