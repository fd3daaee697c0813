// The part of NVIDIA's driver that running an engine needs, opened at run time.
#pragma once

#include <cuda.h>

#include <string>

#include "engine_checks.h"
#include "library.h"

// Two steps: cuda.h renames functions with macros (cuMemAlloc is cuMemAlloc_v2), which must be expanded first.
#define REID_TEXT_OF(name) #name
#define REID_TEXT(name) REID_TEXT_OF(name)
#define REID_CUDA(field, name) decltype(name)* field = library.function<decltype(name)>(REID_TEXT(name))

namespace reid {

struct CudaDriver {
    Library library{"NVIDIA's driver", {"libcuda.so.1"}, "A TensorRT engine needs an NVIDIA GPU and its driver."};
    REID_CUDA(init, cuInit);
    REID_CUDA(device_count, cuDeviceGetCount);
    REID_CUDA(device_get, cuDeviceGet);
    REID_CUDA(device_name, cuDeviceGetName);
    REID_CUDA(device_attribute, cuDeviceGetAttribute);
    REID_CUDA(context_retain, cuDevicePrimaryCtxRetain);
    REID_CUDA(context_release, cuDevicePrimaryCtxRelease);
    REID_CUDA(context_push, cuCtxPushCurrent);
    REID_CUDA(context_pop, cuCtxPopCurrent);
    REID_CUDA(memory_alloc, cuMemAlloc);
    REID_CUDA(memory_free, cuMemFree);
    REID_CUDA(pinned_alloc, cuMemAllocHost);
    REID_CUDA(pinned_free, cuMemFreeHost);
    REID_CUDA(copy_in, cuMemcpyHtoDAsync);
    REID_CUDA(copy_out, cuMemcpyDtoHAsync);
    REID_CUDA(stream_create, cuStreamCreate);
    REID_CUDA(stream_destroy, cuStreamDestroy);
    REID_CUDA(stream_wait, cuStreamSynchronize);
    REID_CUDA(error_text, cuGetErrorString);

    /// @throws Error (run) with CUDA's own words, where `result` is a failure.
    void check(CUresult result, const std::string& what) const;
};

/// The first GPU that this process may use, and the context that all libraries share on it.
class CudaDevice {
public:
    /// @throws Error (not installed): no driver, or no GPU.
    explicit CudaDevice(const std::string& path);
    ~CudaDevice();
    CudaDevice(const CudaDevice&) = delete;
    CudaDevice& operator=(const CudaDevice&) = delete;

    const CudaDriver& driver() const { return driver_; }
    CUcontext context() const { return context_; }
    const Gpu& gpu() const { return gpu_; }

private:
    CudaDriver driver_;
    CUdevice device_ = 0;
    CUcontext context_ = nullptr;
    Gpu gpu_;
};

/// The device is the calling thread's, for as long as this lives; then what it was before.
class CudaScope {
public:
    explicit CudaScope(const CudaDevice& device) : driver_(device.driver()) { driver_.context_push(device.context()); }
    ~CudaScope() {
        CUcontext popped = nullptr;
        driver_.context_pop(&popped);
    }
    CudaScope(const CudaScope&) = delete;
    CudaScope& operator=(const CudaScope&) = delete;

private:
    const CudaDriver& driver_;
};

}  // namespace reid
