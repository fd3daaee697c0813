#include "cuda_driver.h"

#include <array>
#include <fstream>

#include "error.h"

namespace reid {
namespace {

std::string driver_version() {
    std::ifstream file("/sys/module/nvidia/version");
    std::string version;
    file >> version;
    return version;
}

}  // namespace

void CudaDriver::check(CUresult result, const std::string& what) const {
    if (result == CUDA_SUCCESS) return;
    const char* text = nullptr;
    error_text(result, &text);
    fail_run(what + ": " + (text == nullptr ? "CUDA error " + std::to_string(result) : text));
}

CudaDevice::CudaDevice(const std::string& path) {
    int count = 0;
    if (driver_.init(0) != CUDA_SUCCESS || driver_.device_count(&count) != CUDA_SUCCESS || count == 0) {
        fail_not_installed(path + ": a TensorRT engine needs an NVIDIA GPU, and there is none (nvidia-smi).");
    }
    const std::string what = path + ": the GPU does not answer";
    driver_.check(driver_.device_get(&device_, 0), what);
    std::array<char, 256> name{};
    driver_.check(driver_.device_name(name.data(), static_cast<int>(name.size()), device_), what);
    int major = 0, minor = 0;
    driver_.check(driver_.device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device_), what);
    driver_.check(driver_.device_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device_), what);
    gpu_ = {name.data(), std::to_string(major) + "." + std::to_string(minor), driver_version()};
    driver_.check(driver_.context_retain(&context_, device_), what);
}

CudaDevice::~CudaDevice() { driver_.context_release(device_); }

}  // namespace reid
