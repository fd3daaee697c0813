// Stands in for NVIDIA's driver: one GPU, whose memory is the computer's. A stream does nothing before it is waited for, so
// that an answer that is taken too early, or an input that is overwritten too early, shows. Copies take page-locked memory only,
// and memory is only to be had, and given back, where the device is the calling thread's.
#include "fakes.h"

#include <cuda.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

// What the API calls a stream.
struct CUstream_st {
    std::vector<std::function<CUresult()>> work;
};

namespace {

thread_local int num_contexts = 0;
std::mutex mutex;
std::map<const char*, std::size_t> pinned;  // start and size of each piece of page-locked memory
int num_allocated = 0, max_allocated = -1;
std::size_t num_busy = 0, most_busy = 0;

bool is_pinned(const void* pointer, std::size_t size) {
    const std::lock_guard lock(mutex);
    const auto* start = static_cast<const char*>(pointer);
    auto next = pinned.upper_bound(start);
    return next != pinned.begin() && start + size <= (--next)->first + next->second;
}

void* allocate(std::size_t size) {
    const std::lock_guard lock(mutex);
    if (num_contexts == 0 || num_allocated == max_allocated) return nullptr;
    ++num_allocated;
    return std::malloc(size);
}

CUresult release(void* pointer) {
    if (num_contexts == 0) return CUDA_ERROR_INVALID_CONTEXT;
    const std::lock_guard lock(mutex);
    --num_allocated;
    std::free(pointer);
    return CUDA_SUCCESS;
}

CUresult enqueue_copy(CUstream stream, void* to, const void* from, const void* host, std::size_t size) {
    if (!is_pinned(host, size)) return CUDA_ERROR_INVALID_VALUE;
    return fake_enqueue(stream, [=] {
        std::memcpy(to, from, size);
        return CUDA_SUCCESS;
    });
}

}  // namespace

CUresult fake_enqueue(CUstream stream, std::function<CUresult()> work) {
    const std::lock_guard lock(mutex);
    if (stream->work.empty()) most_busy = std::max(most_busy, ++num_busy);
    stream->work.push_back(std::move(work));
    return CUDA_SUCCESS;
}

std::size_t fake_most_busy_streams() {
    const std::lock_guard lock(mutex);
    return std::exchange(most_busy, num_busy);
}

int fake_allocations() {
    const std::lock_guard lock(mutex);
    return num_allocated;
}

void fake_limit_allocations(int limit) {
    const std::lock_guard lock(mutex);
    max_allocated = limit;
}

extern "C" {

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) {
    *count = 1;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int) {
    *device = 0;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int, CUdevice) {
    std::strcpy(name, "Test GPU");
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 8 : 9;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    *context = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent(CUcontext) {
    ++num_contexts;
    return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext*) {
    --num_contexts;
    return CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr* pointer, size_t size) {
    *pointer = reinterpret_cast<CUdeviceptr>(allocate(size));
    return *pointer == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}
CUresult cuMemFree(CUdeviceptr pointer) {
    return release(reinterpret_cast<void*>(pointer));
}
CUresult cuMemAllocHost(void** pointer, size_t size) {
    *pointer = allocate(size);
    if (*pointer == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    const std::lock_guard lock(mutex);
    pinned[static_cast<char*>(*pointer)] = size;
    return CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* pointer) {
    {
        const std::lock_guard lock(mutex);
        pinned.erase(static_cast<char*>(pointer));
    }
    return release(pointer);
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
    return enqueue_copy(stream, reinterpret_cast<void*>(to), from, from, size);
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t size, CUstream stream) {
    return enqueue_copy(stream, to, reinterpret_cast<const void*>(from), to, size);
}
CUresult cuStreamCreate(CUstream* stream, unsigned) {
    *stream = new CUstream_st;
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
    delete stream;
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
    std::vector<std::function<CUresult()>> work;
    {
        const std::lock_guard lock(mutex);
        work.swap(stream->work);
        if (!work.empty()) --num_busy;
    }
    for (const auto& each : work) {
        if (const CUresult result = each(); result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "a test's error";
    return CUDA_SUCCESS;
}
}
