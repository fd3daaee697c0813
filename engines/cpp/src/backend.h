// A loaded network: one input, one output, no pre- or post-processing.
#pragma once

#include <future>
#include <memory>
#include <string>

#include "manifest.h"

namespace reid {

/// What reid_open() was asked for, with defaults filled in.
struct OpenOptions {
    int threads = 1;
    const char* onnxruntime_library = nullptr;
    const char* tensorrt_library = nullptr;
    bool allow_host_code = false;
};

/// A batch under way: get() waits for it in the calling thread, and fills its output. Dropped before that, it leaves the
/// output alone.
using Answer = std::future<void>;

class Backend {
public:
    virtual ~Backend() = default;

    /// Start one batch. Any number of threads may call it at once.
    ///
    /// @param input a batch in the dtype and layout of the artifact's input; the caller may overwrite it afterwards.
    /// @param output receives batch * feature_dim floats.
    /// @throws Error (run): the network fails; here or from the answer.
    virtual Answer start(const void* input, std::size_t batch, float* output) = 0;

    /// How many batches of one caller keep it busy.
    virtual std::size_t num_in_flight() const = 0;

    /// Name and version, device, threads or GPU, precision.
    virtual std::string describe() const = 0;
};

/// A backend and the manifest that it was opened and checked with.
struct Opened {
    Manifest manifest;
    std::unique_ptr<Backend> backend;
};

/// Load an ONNX file, which holds its manifest.
///
/// @throws Error (not installed): no ONNX Runtime; (artifact): the file, its manifest, or that they disagree.
Opened open_onnx(const std::string& path, const OpenOptions& options);

/// Load a TensorRT engine; the manifest beside it is compared with this machine before the engine is read.
///
/// @throws Error (not installed): no TensorRT or no GPU; (artifact): the engine does not fit this machine or its manifest.
Opened open_plan(const std::string& path, const OpenOptions& options);

}  // namespace reid
