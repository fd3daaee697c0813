#include <doctest/doctest.h>

#include <thread>

#include "reidruntime/reidruntime.hpp"
#include "support.h"

namespace {

/// Status and message of opening an artifact.
std::pair<reid_status, std::string> open(const char* artifact, const reid_options* options = nullptr) {
    auto* session = reinterpret_cast<reid_session*>(1);
    const reid_status status = reid_open(artifact, options, &session);
    CHECK(session == nullptr);
    return {status, reid_last_error()};
}

}  // namespace

TEST_CASE("wrong arguments are answered, not followed") {
    CHECK(reid_open("x.onnx", nullptr, nullptr) == REID_ERROR_INPUT);
    CHECK(open(nullptr) == std::pair(REID_ERROR_INPUT, std::string("artifact must not be NULL.")));
    float feature = 0;
    CHECK(reid_embed(nullptr, nullptr, 0, 0, &feature) == REID_ERROR_INPUT);
    CHECK(reid_run(nullptr, nullptr, 0, &feature) == REID_ERROR_INPUT);
    reid_close(nullptr);
}

TEST_CASE("options of another size are refused, shorter ones of an older program taken") {
    reid_options options{};
    CHECK(contains(open("x.onnx", &options).second, "reid_options.size is 0"));
    options.size = sizeof options + 8;
    CHECK(open("x.onnx", &options).first == REID_ERROR_INPUT);
    options.size = sizeof options.size;
    CHECK(contains(open("x.onnx", &options).second, "x.onnx: no such file"));
    options = reidruntime::default_options();
    options.threads = -1;
    CHECK(contains(open("x.onnx", &options).second, "threads must be at least 1"));
}

TEST_CASE("a missing ONNX Runtime is named, with what to install") {
    const TemporaryFolder folder;
    const std::string artifact = folder.write("x.onnx", "not yet looked at");
    reid_options options = reidruntime::default_options();
    options.onnxruntime_library = "/nowhere/libonnxruntime.so";
    const auto [status, message] = open(artifact.c_str(), &options);
    CHECK(status == REID_ERROR_NOT_INSTALLED);
    CHECK(contains(message, "/nowhere/libonnxruntime.so"));
    CHECK(contains(message, "pip install onnxruntime"));
}

TEST_CASE("every thread has a message of its own") {
    (void)open(nullptr);
    std::string elsewhere = "?";
    std::thread([&] { elsewhere = reid_last_error(); }).join();
    CHECK(elsewhere.empty());
    CHECK(contains(reid_last_error(), "artifact"));
}

TEST_CASE("the wrapper throws the status and the message") {
    try {
        const reidruntime::Session session("/nowhere/x.onnx");
        FAIL("opened");
    } catch (const reidruntime::Error& error) {
        CHECK(error.status() == REID_ERROR_ARTIFACT);
        CHECK(contains(error.what(), "/nowhere/x.onnx: no such file"));
    }
}
