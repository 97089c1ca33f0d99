// The nonlinear functions of feed-forward networks.
#ifndef SLUICE_FORMATS_ACTIVATION_H_
#define SLUICE_FORMATS_ACTIVATION_H_

#include <cstdint>

namespace sluice {

enum class Activation : uint8_t {
  kSilu,      // x / (1 + exp(-x))  (Elfwing et al., 2017)
  kGelu,      // x Phi(x), with the error function  (Hendrycks and Gimpel, 2016)
  kGeluTanh,  // its approximation x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3)
  kRelu,      // max(x, 0)
};

}  // namespace sluice

#endif  // SLUICE_FORMATS_ACTIVATION_H_
