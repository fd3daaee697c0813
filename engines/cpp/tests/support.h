// What several tests share.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "error.h"

/// A folder that is removed with everything in it.
class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "reid-XXXXXX").string();
        path_ = mkdtemp(name.data());
    }
    ~TemporaryFolder() { std::filesystem::remove_all(path_); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    /// Write a file in it; returns its path.
    std::string write(const std::string& name, const std::string& content) const {
        const std::string path = path_ / name;
        std::ofstream(path, std::ios::binary) << content;
        return path;
    }

private:
    std::filesystem::path path_;
};

/// What the library complains about in `call`, or "" if it does not.
template <typename Call>
std::string complaint(Call call) {
    try {
        call();
        return "";
    } catch (const reid::Error& error) {
        return error.what();
    }
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The manifest of a uint8 NHWC network for 4x2 images with as many features as pixels.
inline nlohmann::json small_manifest() {
    return nlohmann::json::parse(R"({
        "format_version": 1,
        "producer": {"name": "tests", "version": "0"},
        "source": {"name": "none.pth", "sha256": "0"},
        "architecture": {"backbone": "tiny", "family": "tests", "stem_relu": null, "pooling": "avg", "neck": "none",
                         "feature_dim": 24},
        "input": {"name": "images", "dtype": "uint8", "shape": [null, 4, 2, 3]},
        "output": {"name": "f_i", "dtype": "float32", "shape": [null, 24]},
        "preprocess": {"height_px": 4, "width_px": 2, "mean": [0, 0, 0], "std": [1, 1, 1], "in_graph": true},
        "feature": "f_i", "normalized": false, "flip": false, "metric": "cosine", "precision": "fp32",
        "layer_precisions": {"fp32": 1},
        "batch_profile": {"minimum": 1, "optimum": 2, "maximum": 4}
    })");
}

/// The same for an engine built with TensorRT 10.16.1.11 on the tests' GPU.
inline nlohmann::json small_engine_manifest() {
    nlohmann::json manifest = small_manifest();
    manifest["engine"] = {{"flavor", "tensorrt"},
                          {"tensorrt_version", "10.16.1.11"},
                          {"gpu_name", "Test GPU"},
                          {"compute_capability", "8.9"},
                          {"driver_version", ""},
                          {"onnx_name", "tiny.onnx"},
                          {"onnx_sha256", "0"},
                          {"plan_sha256", "0"},
                          {"layers", {{"network", {{"fp32", 1}}}}}};
    return manifest;
}

/// A profile of an ONNX file with features as long as small_manifest()'s, of cameras 1 and 3.
inline nlohmann::json small_camera_profile(const std::string& onnx_sha256) {
    const auto statistics = [](float mean, float deviation) -> nlohmann::json {
        return {{"num_crops", 64},
                {"mean", std::vector<float>(24, mean)},
                {"deviation", std::vector<float>(24, deviation)}};
    };
    nlohmann::json profile = {{"format_version", 1},
                              {"producer", {{"name", "tests"}, {"version", "0"}}},
                              {"artifact", {{"name", "site.onnx"}, {"sha256", onnx_sha256}}},
                              {"standardizes", true},
                              {"all_crops", statistics(10, 4)},
                              {"cameras", {statistics(1, 2), statistics(3, 0.5)}}};
    profile["cameras"][0]["camid"] = 0;
    profile["cameras"][1]["camid"] = 2;
    return profile;
}
