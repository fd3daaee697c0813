#include "engine_checks.h"

#include <doctest/doctest.h>

#include <map>

#include "support.h"

namespace {

const reid::Gpu kGpu = {"Test GPU", "8.9", "580.65"};

using Changes = std::map<std::string, nlohmann::json>;

/// The complaint about the tests' engine with some engine facts changed, on a machine.
std::string about(const Changes& changes, const std::string& version = "10.16.1", const reid::Gpu& gpu = kGpu,
                  bool allow_host_code = false) {
    nlohmann::json manifest = small_engine_manifest();
    for (const auto& [key, value] : changes) manifest["engine"][key] = value;
    return complaint([&] {
        reid::check_engine(reid::manifest_from_json(manifest.dump(), "x"), "x.engine", version, gpu, allow_host_code);
    });
}

}  // namespace

TEST_CASE("an engine opens with the TensorRT, on the GPU and the driver it was built with") {
    CHECK(about({}).empty());
    CHECK(about({{"driver_version", "580.9"}}).empty());
    CHECK(about({{"driver_version", "600.1"}}, "10.16.1", {"Test GPU", "8.9", ""}).empty());
}

TEST_CASE("another TensorRT, GPU or driver is refused with expected, found and what to rebuild") {
    CHECK(contains(about({}, "10.14.1"), "built with TensorRT 10.16.1.11, installed is 10.14.1"));
    CHECK(contains(about({}, "10.14.1"), "reidexport trt tiny.onnx -o x.engine"));
    CHECK(contains(about({}, "11.4.0"), "installed is 11.4.0"));
    CHECK(contains(about({}, "10.16.1", {"Test GPU", "9.0", ""}), "built for Test GPU (8.9), this is Test GPU (9.0)"));
    CHECK(contains(about({}, "10.16.1", {"Other", "8.9", ""}), "this is Other (8.9)"));
    CHECK(contains(about({{"driver_version", "580.100"}}), "older 580.65"));
}

TEST_CASE("a version-compatible engine needs consent, and never goes to an older TensorRT") {
    const Changes compatible = {{"version_compatible", true}};
    CHECK(contains(about(compatible, "11.4.0"), "carries code that runs"));
    CHECK(about(compatible, "11.4.0", kGpu, true).empty());
    CHECK(contains(about(compatible, "10.9.0", kGpu, true), "installed is 10.9.0"));
}

TEST_CASE("a hardware-compatible engine goes to every GPU from Ampere on") {
    const Changes compatible = {{"hardware_compatible", true}};
    CHECK(about(compatible, "10.16.1", {"Other", "12.0", ""}).empty());
    CHECK(contains(about(compatible, "10.16.1", {"Old", "7.5", ""}), "compute capability 8.0 and up"));
}

TEST_CASE("engines of TensorRT for RTX and engines without weights are left to Python") {
    CHECK(contains(about({{"flavor", "rtx"}}), "TensorRT for RTX"));
    CHECK(contains(about({{"weights_stripped", true}}), "without its weights"));
}
