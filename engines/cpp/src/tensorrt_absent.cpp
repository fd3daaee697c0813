// Replaces tensorrt_backend.cpp where TensorRT's headers were not found.
#include "backend.h"
#include "error.h"

namespace reid {

Opened open_plan(const std::string& path, const OpenOptions&) {
    fail_not_installed(path + ": this libreidruntime was built without TensorRT. Build it where TensorRT's headers are (cmake " +
                       "-DTENSORRT_INCLUDE_DIR=...), or open the ONNX file.");
}

}  // namespace reid
