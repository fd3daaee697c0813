// Stands in for libnvinfer x.16.1. Its "network" takes 4x2 pixels and answers each as a float. A batch whose first value is
// 13 fails while it runs, and a batch of three images is refused. An engine is any text that starts with "plan".
//
// The headers' classes forward every call to a table of virtual functions in the library. The real ones have a hundred entries:
// this fills in those that the runtime may call, at the places that the headers give them, and aborts in all others.
#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "fakes.h"

namespace {

using namespace nvinfer1;

constexpr std::size_t kNumEntries = 200;
constexpr int kSmallest = 1, kLargest = 4, kRefused = 3, kPixels = 4 * 2 * 3;

[[noreturn]] void unexpected_call() {
    std::fputs("the runtime called a function of TensorRT that is not on the tests' list\n", stderr);
    std::abort();
}

struct Table {
    std::array<void*, kNumEntries> entries;
};

template <typename Member>
void fill(Table& table, Member member, void* function) {
    // In the Itanium ABI a pointer to a virtual function holds its offset in the table, plus one.
    std::ptrdiff_t offset = 0;
    std::memcpy(&offset, &member, sizeof offset);
    table.entries[static_cast<std::size_t>(offset - 1) / sizeof(void*)] = function;
}

Table empty_table() {
    Table table{};
    table.entries.fill(reinterpret_cast<void*>(&unexpected_call));
    return table;
}

/// An object of class V with a table of our own.
template <typename V>
struct Implementation {
    const Table* table;
    V* get() { return reinterpret_cast<V*>(this); }
};

struct Engine final : ICudaEngine {
    explicit Engine(const Table& table) : implementation{&table} { mImpl = implementation.get(); }
    Implementation<apiv::VCudaEngine> implementation;
};
struct Runtime final : IRuntime {
    explicit Runtime(const Table& table) : implementation{&table} { mImpl = implementation.get(); }
    Implementation<apiv::VRuntime> implementation;
};

/// What one execution context was told; the tables' functions get a pointer to its Implementation.
struct ContextState : Implementation<apiv::VExecutionContext> {
    void* input = nullptr;
    void* output = nullptr;
    std::int64_t batch = 0;
};

ILogger* logger = nullptr;

bool is_input(const char* name) { return std::string_view(name) == "images"; }

bool set_tensor_address(ContextState* state, const char* name, void* address) {
    (is_input(name) ? state->input : state->output) = address;
    return true;
}

bool set_input_shape(ContextState* state, const char* name, const Dims& dims) {
    state->batch = dims.d[0];
    return is_input(name) && dims.nbDims == 4 && dims.d[0] >= kSmallest && dims.d[0] <= kLargest && dims.d[1] == 4 &&
           dims.d[2] == 2 && dims.d[3] == 3;
}

bool enqueue(ContextState* state, cudaStream_t stream) {
    if (state->batch == kRefused) {
        logger->log(ILogger::Severity::kERROR, "three is a crowd");
        return false;
    }
    fake_enqueue(stream, [input = state->input, output = state->output, batch = state->batch] {
        const auto* pixels = static_cast<const std::uint8_t*>(input);
        if (pixels[0] == 13) return CUDA_ERROR_LAUNCH_FAILED;
        std::copy_n(pixels, batch * kPixels, static_cast<float*>(output));
        return CUDA_SUCCESS;
    });
    return true;
}

const Table& context_table() {
    static const Table table = [] {
        using V = apiv::VExecutionContext;
        Table made = empty_table();
        fill(made, &V::setTensorAddress, reinterpret_cast<void*>(&set_tensor_address));
        fill(made, &V::setInputShape, reinterpret_cast<void*>(&set_input_shape));
        fill(made, &V::enqueueV3, reinterpret_cast<void*>(&enqueue));
        return made;
    }();
    return table;
}

/// IExecutionContext with state behind it.
struct StatefulContext final : IExecutionContext {
    StatefulContext() {
        state.table = &context_table();
        mImpl = state.get();
    }
    ContextState state;
};

IExecutionContext* create_context(void*, ExecutionContextAllocationStrategy) { return new StatefulContext; }
std::int32_t num_tensors(void*) { return 2; }
const char* tensor_name(void*, std::int32_t index) { return index == 0 ? "images" : "f_i"; }
TensorIOMode tensor_mode(void*, const char* name) { return is_input(name) ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT; }
DataType tensor_dtype(void*, const char* name) { return is_input(name) ? DataType::kUINT8 : DataType::kFLOAT; }

Dims tensor_shape(void*, const char* name) {
    return is_input(name) ? Dims{4, {-1, 4, 2, 3}} : Dims{2, {-1, kPixels}};
}
Dims profile_shape(void*, const char*, std::int32_t, OptProfileSelector select) {
    return Dims{4, {select == OptProfileSelector::kMIN ? kSmallest : kLargest, 4, 2, 3}};
}

ICudaEngine* deserialize(void*, const void* blob, std::size_t size) {
    static const Table table = [] {
        using V = apiv::VCudaEngine;
        Table made = empty_table();
        fill(made, static_cast<IExecutionContext* (V::*)(ExecutionContextAllocationStrategy) noexcept>(
                       &V::createExecutionContext),
             reinterpret_cast<void*>(&create_context));
        fill(made, &V::getNbIOTensors, reinterpret_cast<void*>(&num_tensors));
        fill(made, &V::getIOTensorName, reinterpret_cast<void*>(&tensor_name));
        fill(made, &V::getTensorIOMode, reinterpret_cast<void*>(&tensor_mode));
        fill(made, &V::getTensorDataType, reinterpret_cast<void*>(&tensor_dtype));
        fill(made, &V::getTensorShape, reinterpret_cast<void*>(&tensor_shape));
        fill(made, &V::getProfileShape, reinterpret_cast<void*>(&profile_shape));
        return made;
    }();
    if (!std::string_view(static_cast<const char*>(blob), size).starts_with("plan")) {
        logger->log(ILogger::Severity::kERROR, "magic tag does not match");
        return nullptr;
    }
    return new Engine(table);
}

void allow_host_code(void*, bool) {}

}  // namespace

extern "C" {

std::int32_t getInferLibVersion() noexcept { return NV_TENSORRT_MAJOR * 10000 + 1601; }

void* createInferRuntime_INTERNAL(void* given_logger, std::int32_t) noexcept {
    static const Table table = [] {
        using V = apiv::VRuntime;
        Table made = empty_table();
        fill(made, static_cast<ICudaEngine* (V::*)(const void*, std::size_t) noexcept>(&V::deserializeCudaEngine),
             reinterpret_cast<void*>(&deserialize));
        fill(made, &V::setEngineHostCodeAllowed, reinterpret_cast<void*>(&allow_host_code));
        return made;
    }();
    logger = static_cast<ILogger*>(given_logger);
    return new Runtime(table);
}
}
