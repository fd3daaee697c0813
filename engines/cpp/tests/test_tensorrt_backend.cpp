// The TensorRT backend on the stand-ins of fake_cuda.cpp and fake_nvinfer.cpp.
#include <NvInferVersion.h>
#include <doctest/doctest.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "fakes.h"
#include "reidruntime/reidruntime.hpp"
#include "sha256.h"
#include "support.h"

namespace {

constexpr std::size_t kPixels = 4 * 2 * 3;
constexpr int kLaneAllocations = 4;  // input and output, on the GPU and page-locked

nlohmann::json manifest_of(const std::string& plan) {
    nlohmann::json manifest = small_engine_manifest();
    manifest["engine"]["tensorrt_version"] = std::to_string(NV_TENSORRT_MAJOR) + ".16.1.11";
    manifest["engine"]["plan_sha256"] = reid::sha256({reinterpret_cast<const std::uint8_t*>(plan.data()), plan.size()});
    return manifest;
}

/// Write an engine with its manifest; returns the engine's path.
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

TEST_CASE("an engine answers every image in its place, in batches within its profile") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    CHECK(contains(session.description(), "Test GPU, fp32"));
    for (const std::size_t count : {0, 1, 4, 6, 16}) {
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

TEST_CASE("pixels that the options call BGR answer as their RGB") {
    const TemporaryFolder folder;
    reid_options options = reidruntime::default_options();
    options.bgr_pixels = 1;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")), options);
    for (const std::size_t count : {1, 6}) {
        const std::vector<std::uint8_t> rgb = pictures(count);
        std::vector<std::uint8_t> bgr = rgb;
        for (std::size_t i = 0; i < bgr.size(); i += 3) std::swap(bgr[i], bgr[i + 2]);
        std::vector<reid_image> images;
        for (std::size_t i = 0; i < count; ++i) {
            images.push_back(reidruntime::image_from_pixels(bgr.data() + i * kPixels, 4, 2));
        }
        CHECK(session.embed(std::span<const reid_image>(images)).values == std::vector<float>(rgb.begin(), rgb.end()));
    }
}

TEST_CASE("the answers of batches beside each other are standardized by the cameras of their images") {
    const TemporaryFolder folder;
    const std::string cameras = folder.write("x.cameras.json", small_camera_profile("0").dump());
    const std::string artifact = write(folder, "plan", manifest_of("plan"));
    reid_options options = reidruntime::default_options();
    options.cameras = cameras.c_str();
    const std::vector<std::uint8_t> pixels = pictures(16);
    std::vector<reid_image> images;
    std::vector<float> expected(pixels.begin(), pixels.end());
    for (std::size_t i = 0; i < 16; ++i) {
        const bool is_first = i % 3 == 0;
        images.push_back(reidruntime::image_from_pixels(pixels.data() + i * kPixels, 4, 2, 0, is_first ? 1 : 3));
        for (float& value : std::span(expected).subspan(i * kPixels, kPixels)) {
            value = is_first ? (value - 1) / 2 : (value - 3) / 0.5F;
        }
    }
    const reidruntime::Session session(artifact, options);
    CHECK(session.embed(std::span<const reid_image>(images)).values == expected);
    CHECK(session.embed(std::span<const reid_image>(images).first(1)).values ==
          std::vector<float>(expected.begin(), expected.begin() + kPixels));
    CHECK_THROWS_AS((void)session.run(pixels), reidruntime::Error);
    CHECK(contains(reid_last_error(), "reid_run() does not take the cameras of images. Call reid_embed()"));
    const std::vector<std::string> paths = {"a.jpg", "b.jpg"};
    const std::vector<std::size_t> too_few = {1};
    CHECK_THROWS_WITH_AS((void)session.embed(paths, 0, too_few), "expected a camera for each of 2 images, got 1",
                         reidruntime::Error);
    options.unknown_camera_mean = 1;
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = (static_cast<float>(pixels[i]) - 10) / 4;
    CHECK(reidruntime::Session(artifact, options).run(pixels).values == expected);
}

TEST_CASE("threads answer beside each other") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    const std::vector<std::uint8_t> pixels = pictures(16);
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

TEST_CASE("one caller keeps two batches under way, and no more") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    const std::vector<std::uint8_t> pixels = pictures(16);
    (void)fake_most_busy_streams();
    (void)session.run(pixels);
    CHECK(fake_most_busy_streams() == 2);
    std::vector<reid_image> images;
    for (std::size_t i = 0; i < 16; ++i) {
        images.push_back(reidruntime::image_from_pixels(pixels.data() + i * kPixels, 4, 2));
    }
    (void)session.embed(std::span<const reid_image>(images));
    CHECK(fake_most_busy_streams() == 2);
    (void)session.run(std::span(pixels).first(kPixels));
    CHECK(fake_most_busy_streams() == 1);
}

TEST_CASE("a batch that fails is an error with its words, and the session stays usable") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    std::vector<float> features(16 * kPixels);
    const auto answer = [&](const std::vector<std::uint8_t>& pixels) {
        return reid_run(session.get(), pixels.data(), pixels.size() / kPixels, features.data());
    };
    std::vector<std::uint8_t> failing = pictures(16);
    for (const std::size_t first_of_batch : {0, 4, 12}) {
        failing[first_of_batch * kPixels] = 13;
        CHECK(answer(failing) == REID_ERROR_RUN);
        CHECK(contains(reid_last_error(), "failed on a batch of 4: a test's error"));
        CHECK(fake_allocations() < 2 * kLaneAllocations);  // what has failed is not used again
        failing[first_of_batch * kPixels] = 1;
        CHECK(answer(failing) == REID_OK);
        CHECK(std::equal(failing.begin(), failing.end(), features.begin()));
    }
    CHECK(answer(pictures(7)) == REID_ERROR_RUN);
    CHECK(contains(reid_last_error(), "failed on a batch of 3: three is a crowd"));
    CHECK(answer(pictures(6)) == REID_OK);
}

TEST_CASE("a bad image beside a batch under way is an error, and the session stays usable") {
    const TemporaryFolder folder;
    const reidruntime::Session session(write(folder, "plan", manifest_of("plan")));
    const std::vector<std::uint8_t> pixels = pictures(4);
    std::vector<reid_image> images(5, reidruntime::image_from_pixels(pixels.data(), 4, 2));
    images[4] = reidruntime::image_from_file("/nowhere/a.jpg");
    const int before = fake_allocations();
    for (int i = 0; i < 3; ++i) {
        CHECK_THROWS_WITH_AS((void)session.embed(std::span<const reid_image>(images)),
                             "/nowhere/a.jpg: cannot be read (No such file or directory).", reidruntime::Error);
    }
    CHECK(fake_allocations() == before);
    CHECK(session.run(pixels).values == std::vector<float>(pixels.begin(), pixels.end()));
}

TEST_CASE("memory of the GPU and of the computer is freed, also where there is too little") {
    const TemporaryFolder folder;
    const std::string path = write(folder, "plan", manifest_of("plan"));
    const int before = fake_allocations();
    const int needed = [&] {
        const reidruntime::Session session(path);
        return fake_allocations() - before;
    }();
    CHECK(fake_allocations() == before);
    for (int room = 0; room < needed; ++room) {
        fake_limit_allocations(before + room);
        CHECK(contains(opening(path).second, "x.engine: no room for another batch on the GPU"));
        CHECK(fake_allocations() == before);
    }
    fake_limit_allocations(before + needed);
    CHECK(opening(path).first == REID_OK);
    fake_limit_allocations(-1);
    CHECK(fake_allocations() == before);
}

TEST_CASE("an engine without its manifest, with another one, or that TensorRT refuses does not open") {
    const TemporaryFolder folder;
    CHECK(contains(opening(folder.write("y.engine", "plan")).second, "y.engine.json: cannot be read"));
    CHECK(contains(opening(write(folder, "another plan", manifest_of("plan"))).second, "not the engine"));
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
