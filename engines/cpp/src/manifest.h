// The manifest: what a runtime must know about an artifact. Python's reidruntime/artifact/manifest.py is its definition.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace reid {

constexpr const char* kMetadataKey = "reidexport.manifest";
constexpr std::int64_t kDynamic = -1;  ///< the batch dimension of a file for any batch

struct TensorSpec {
    std::string name;
    std::string dtype;                ///< "uint8", "float32", ...
    std::vector<std::int64_t> shape;  ///< kDynamic for the batch
};

struct Preprocess {
    std::size_t height_px;
    std::size_t width_px;
    bool bgr;
    bool nchw;
    bool bicubic;
    std::array<double, 3> mean;  ///< of pixels in [0, 1]
    std::array<double, 3> std;
    bool in_graph;  ///< the artifact takes raw uint8 pixels
    bool bgr_pixels = false;  ///< the caller's pixels are BGR: of its options, not of the manifest

    bool operator==(const Preprocess&) const = default;
};

struct BatchProfile {
    std::size_t minimum;
    std::optional<std::size_t> optimum;
    std::optional<std::size_t> maximum;  ///< none: no upper limit

    bool operator==(const BatchProfile&) const = default;
};

/// What a TensorRT engine is tied to; gpu_name and the like are empty for TensorRT for RTX.
struct Engine {
    std::string flavor;
    std::string tensorrt_version;
    std::string gpu_name;
    std::string compute_capability;
    std::string driver_version;
    std::string onnx_name;
    std::string onnx_sha256;
    std::string plan_sha256;
    bool version_compatible;
    bool hardware_compatible;
    bool weights_stripped;
};

struct Manifest {
    std::string json;  ///< the text it was read from
    TensorSpec input;
    TensorSpec output;
    Preprocess preprocess;
    std::size_t feature_dim;
    bool normalized;  ///< features have unit length
    std::string metric;
    std::string precision;
    std::string quantized_for;  ///< "cpu" or "tensorrt"; empty where nothing is said
    BatchProfile batch_profile;
    std::optional<Engine> engine;
};

/// Parse and validate a manifest against the schema that manifest.py exports.
///
/// @param origin what to call the source in an error message.
/// @throws Error (artifact): not JSON, another format version, or not valid.
Manifest manifest_from_json(const std::string& text, const std::string& origin);

/// Compare the manifest with what the file itself says of its input and output, and its preprocessing with its input.
///
/// @throws Error (artifact): they disagree; the message says what was expected and found, and what to do.
void check_manifest(const Manifest& manifest, const std::vector<TensorSpec>& inputs,
                    const std::vector<TensorSpec>& outputs, const std::string& path);

}  // namespace reid
