// The TensorRT backend on the stand-ins of fake_cuda.cpp and fake_nvinfer.cpp.
#include <NvInferVersion.h>
#include <doctest/doctest.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "reidruntime/reidruntime.hpp"
#include "sha256.h"
#include "support.h"

namespace {

constexpr std::size_t kPixels = 4 * 2 * 3;

nlohmann::json manifest_of(const std::string& plan) {
    nlohmann::json manifest = small_engine_manifest();
    manifest["engine"]["tensorrt_version"] = std::to_string(NV_TENSORRT_MAJOR) + ".16.1.11";
    manifest["engine"]["plan_sha256"] = reid::sha256({reinterpret_cast<const std::uint8_t*>(plan.data()), plan.size()});
    return manifest;
}

/// Write a plan with its manifest; returns the plan's path.
std::string write(const TemporaryFolder& folder, const std::string& plan, const nlohmann::json& manifest) {
    folder.write("x.engine.json", manifest.dump());
    return folder.write("x.engine", plan);
}

std::pair<reid_status, std::string> opening(const std::string& path) {
    reid_session* session = nullptr;
    const reid_status status = reid_open(path.c_str(), nullptr, &session);
    reid_close(session);
    return {status, status == REID_OK ? "" : reid_last_error()};
}

std::vector<std::uint8_t> pictures(std::size_t count) {
    std::vector<std::uint8_t> pixels(count * kPixels);
    std::iota(pixels.begin(), pixels.end(), std::uint8_t{20});
    for (std::size_t i = 0; i < pixels.size(); i += kPixels) pixels[i] = 1;
    return pixels;
}

}  // namespace

TEST_CASE("a plan answers every image in its place, in batches within its profile") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    CHECK(contains(session.description(), "Test GPU, fp32"));
    for (const std::size_t count : {0, 1, 4, 7}) {
        const std::vector<std::uint8_t> pixels = pictures(count);
        const reidruntime::Features features = session.run(pixels);
        CHECK(features.values == std::vector<float>(pixels.begin(), pixels.end()));
        std::vector<reid_image> images;
        for (std::size_t i = 0; i < count; ++i) {
            images.push_back(reidruntime::image_from_pixels(pixels.data() + i * kPixels, 4, 2));
        }
        CHECK(session.embed(std::span<const reid_image>(images)).values == features.values);
    }
}

TEST_CASE("threads answer beside each other") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    const std::vector<std::uint8_t> pixels = pictures(3);
    std::atomic<int> wrong = 0;
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                for (int k = 0; k < 100; ++k) {
                    if (session.run(pixels).values != std::vector<float>(pixels.begin(), pixels.end())) ++wrong;
                }
            });
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("a batch that fails is an error with TensorRT's words, and the session goes on") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    std::vector<std::uint8_t> pixels = pictures(1);
    pixels[0] = 13;
    std::vector<float> features(kPixels);
    CHECK(reid_run(session.get(), pixels.data(), 1, features.data()) == REID_ERROR_RUN);
    CHECK(contains(reid_last_error(), "failed on a batch of 1: thirteen"));
    pixels[0] = 12;
    CHECK(reid_run(session.get(), pixels.data(), 1, features.data()) == REID_OK);
}

TEST_CASE("a plan without its manifest, with another one, or that TensorRT refuses does not open") {
    const TemporaryFolder folder;
    CHECK(contains(opening(folder.write("y.engine", "plan")).second, "y.engine.json: cannot be read"));
    CHECK(contains(opening(write(folder, "another plan", manifest_of("plan"))).second, "not the plan"));
    CHECK(contains(opening(write(folder, "junk", manifest_of("junk"))).second, "magic tag does not match"));
    nlohmann::json wrong = manifest_of("plan");
    wrong["engine"]["tensorrt_version"] = "9.1.0.4";
    CHECK(contains(opening(write(folder, "junk", wrong)).second, "built with TensorRT 9.1.0.4"));
    wrong = manifest_of("plan");
    wrong["engine"]["compute_capability"] = "7.5";
    CHECK(contains(opening(write(folder, "plan", wrong)).second, "built for Test GPU (7.5), this is Test GPU (8.9)"));
    wrong = manifest_of("plan");
    wrong["batch_profile"]["maximum"] = 8;
    CHECK(contains(opening(write(folder, "plan", wrong)).second, "takes batches of 1 to 4, the manifest says 1 to 8"));
    wrong = manifest_of("plan");
    wrong["input"]["name"] = "planes";
    CHECK(contains(opening(write(folder, "plan", wrong)).second, "'planes' is not in the file, which has 'images'"));
    for (const nlohmann::json& broken : {nlohmann::json(), small_manifest()}) {
        CHECK(opening(write(folder, "plan", broken)).first == REID_ERROR_ARTIFACT);
    }
}

TEST_CASE("a missing TensorRT is named, with what to install") {
    const TemporaryFolder folder;
    const std::string path = write(folder, "plan", manifest_of("plan"));
    reid_options options = reidruntime::default_options();
    options.tensorrt_library = "/nowhere/libnvinfer.so";
    reid_session* session = nullptr;
    CHECK(reid_open(path.c_str(), &options, &session) == REID_ERROR_NOT_INSTALLED);
    CHECK(contains(reid_last_error(), "Install TensorRT"));
}
