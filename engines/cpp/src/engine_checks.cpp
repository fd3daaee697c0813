#include "engine_checks.h"

#include <charconv>
#include <filesystem>
#include <vector>

#include "error.h"
#include "sha256.h"

namespace reid {
namespace {

const std::vector<int> kFirstHardwareCompatible = {8, 0};  // Ampere
constexpr std::size_t kReleaseParts = 3;                   // major, minor, patch; behind them a build number

/// "10.16.1" -> 10, 16, 1; what is not a number ends it.
std::vector<int> numbers(const std::string& version) {
    std::vector<int> result;
    const char* at = version.data();
    const char* const end = at + version.size();
    int number = 0;
    while (at < end) {
        const auto [next, problem] = std::from_chars(at, end, number);
        if (problem != std::errc()) break;
        result.push_back(number);
        at = next < end && *next == '.' ? next + 1 : end;
    }
    return result;
}

std::vector<int> release_of(const std::string& version) {
    std::vector<int> parts = numbers(version);
    parts.resize(kReleaseParts);
    return parts;
}

std::string rebuild(const Engine& engine, const std::string& path) {
    return " Build it again here: reidexport trt " + engine.onnx_name + " -o " +
           std::filesystem::path(path).filename().string() + ".";
}

void check_version(const Engine& engine, const std::string& path, const std::string& installed, bool allow_host_code) {
    const std::vector<int> built = release_of(engine.tensorrt_version), here = release_of(installed);
    if (engine.version_compatible ? here < built : here != built) {
        fail_artifact(path + ": built with TensorRT " + engine.tensorrt_version + ", installed is " + installed + "." +
                      rebuild(engine, path));
    }
    if (engine.version_compatible && !allow_host_code) {
        fail_artifact(path + ": a version-compatible engine, which carries code that runs when it is loaded. Set " +
                      "allow_host_code if you trust the file.");
    }
}

void check_gpu(const Engine& engine, const std::string& path, const Gpu& gpu) {
    const std::string found = gpu.name + " (" + gpu.compute_capability + ")";
    if (engine.hardware_compatible) {
        if (numbers(gpu.compute_capability) < kFirstHardwareCompatible) {
            fail_artifact(path + ": for GPUs of compute capability 8.0 and up, this is " + found + "." +
                          rebuild(engine, path));
        }
    } else if (engine.gpu_name != gpu.name || engine.compute_capability != gpu.compute_capability) {
        fail_artifact(path + ": built for " + engine.gpu_name + " (" + engine.compute_capability + "), this is " + found +
                      "." + rebuild(engine, path));
    }
    if (!gpu.driver_version.empty() && numbers(gpu.driver_version) < numbers(engine.driver_version)) {
        fail_artifact(path + ": built with driver " + engine.driver_version + ", this machine has the older " +
                      gpu.driver_version + ". Update the driver." + rebuild(engine, path));
    }
}

}  // namespace

void check_engine(const Manifest& manifest, const std::string& path, const std::string& tensorrt_version, const Gpu& gpu,
                  bool allow_host_code) {
    if (!manifest.engine) {
        fail_artifact(path + ": its manifest is not that of an engine. Build it with reidexport trt.");
    }
    const Engine& engine = *manifest.engine;
    if (engine.flavor != "tensorrt") {
        fail_artifact(path + ": an engine of TensorRT for RTX; this library opens those of TensorRT. Open it in Python, or " +
                      "build it with --flavor tensorrt.");
    }
    if (engine.weights_stripped) {
        fail_artifact(path + ": an engine without its weights, which this library does not put back. Open it in Python, or " +
                      "build it without --strip-weights.");
    }
    if (!manifest.batch_profile.maximum) {
        fail_artifact(path + ": the manifest's batch profile has no maximum, as every engine has." + rebuild(engine, path));
    }
    check_version(engine, path, tensorrt_version, allow_host_code);
    check_gpu(engine, path, gpu);
}

void check_plan_bytes(const Engine& engine, const std::string& path, std::span<const std::uint8_t> plan) {
    const std::string found = sha256(plan);
    if (found != engine.plan_sha256) {
        fail_artifact(path + ": not the engine that its manifest describes (sha256 expected " +
                      engine.plan_sha256.substr(0, 12) + "…, found " + found.substr(0, 12) +
                      "…). Copy both files together." + rebuild(engine, path));
    }
}

}  // namespace reid
