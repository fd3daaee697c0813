#include "manifest.h"

#include "error.h"
#include "json_format.h"
#include "schemas.h"

namespace reid {
namespace {

using nlohmann::json;

// One image of this many bytes is a mistake, and the product of sizes below it cannot overflow.
constexpr std::int64_t kMaxSide = 1 << 14;
constexpr std::int64_t kMaxCount = 1 << 24;

std::size_t count(const json& value, std::int64_t largest, const char* what, const std::string& origin) {
    const double size = value.get<double>();
    if (size < 1 || size > static_cast<double>(largest)) {
        fail_artifact(origin + ": the manifest's " + what + " is " + value.dump() + ", expected 1 to " +
                      std::to_string(largest) + ". Export the artifact again.");
    }
    return value.get<std::size_t>();
}

std::optional<std::size_t> optional_count(const json& data, const char* key, const std::string& origin) {
    const auto found = data.find(key);
    if (found == data.end() || found->is_null()) return std::nullopt;
    return count(*found, kMaxCount, key, origin);
}

std::string text_or_empty(const json& data, const char* key) {
    const auto found = data.find(key);
    return found == data.end() || found->is_null() ? "" : found->get<std::string>();
}

TensorSpec tensor(const json& data, const std::string& origin) {
    TensorSpec spec{data.at("name"), data.at("dtype"), {}};
    for (const json& size : data.at("shape")) {
        spec.shape.push_back(
            size.is_null() ? kDynamic : static_cast<std::int64_t>(count(size, kMaxCount, "shape", origin)));
    }
    return spec;
}

Preprocess preprocess(const json& data, const std::string& origin) {
    Preprocess result{
        .height_px = count(data.at("height_px"), kMaxSide, "height_px", origin),
        .width_px = count(data.at("width_px"), kMaxSide, "width_px", origin),
        .bgr = data.value("channel_order", "RGB") == "BGR",
        .nchw = data.value("layout", "NHWC") == "NCHW",
        .bicubic = data.value("resize", "bilinear") == "bicubic",
        .mean = data.at("mean"),
        .std = data.at("std"),
        .in_graph = data.at("in_graph"),
    };
    for (const double deviation : result.std) {
        if (deviation <= 0) {
            fail_artifact(origin + ": the manifest's std must be positive, got " + data.at("std").dump() +
                          ". Export the artifact again.");
        }
    }
    return result;
}

std::optional<Engine> engine(const json& data) {
    const auto found = data.find("engine");
    if (found == data.end() || found->is_null()) return std::nullopt;
    return Engine{
        .flavor = found->at("flavor"),
        .tensorrt_version = found->at("tensorrt_version"),
        .gpu_name = text_or_empty(*found, "gpu_name"),
        .compute_capability = text_or_empty(*found, "compute_capability"),
        .driver_version = text_or_empty(*found, "driver_version"),
        .onnx_name = found->at("onnx_name"),
        .onnx_sha256 = found->at("onnx_sha256"),
        .plan_sha256 = found->at("plan_sha256"),
        .version_compatible = found->value("version_compatible", false),
        .hardware_compatible = found->value("hardware_compatible", false),
        .weights_stripped = found->value("weights_stripped", false),
    };
}

BatchProfile batch_profile(const json& data, const std::string& origin) {
    BatchProfile profile{optional_count(data, "minimum", origin).value_or(1),
                         optional_count(data, "optimum", origin), optional_count(data, "maximum", origin)};
    if (profile.maximum && *profile.maximum < profile.minimum) {
        fail_artifact(origin + ": the manifest's batch profile goes from " + std::to_string(profile.minimum) +
                      " to " + std::to_string(*profile.maximum) + ". Export the artifact again.");
    }
    return profile;
}

std::string quantized_for(const json& data) {
    const json quantization = data.value("quantization", json());
    return quantization.is_null() ? "" : quantization.at("target").get<std::string>();
}

}  // namespace

Manifest manifest_from_json(const std::string& text, const std::string& origin) {
    static const JsonFormat format("the manifest", kManifestSchema, "Export the artifact again.");
    return format.read(text, origin, [&](const json& data) {
        return Manifest{
            .json = text,
            .input = tensor(data.at("input"), origin),
            .output = tensor(data.at("output"), origin),
            .preprocess = preprocess(data.at("preprocess"), origin),
            .feature_dim = count(data.at("architecture").at("feature_dim"), kMaxCount, "feature_dim", origin),
            .normalized = data.at("normalized"),
            .metric = data.at("metric"),
            .precision = data.at("precision"),
            .quantized_for = quantized_for(data),
            .batch_profile = batch_profile(data.at("batch_profile"), origin),
            .engine = engine(data),
        };
    });
}

}  // namespace reid
