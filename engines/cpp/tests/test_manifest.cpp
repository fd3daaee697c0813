#include "manifest.h"

#include <doctest/doctest.h>

#include "support.h"

namespace {

std::string complaint_about(const nlohmann::json& manifest) {
    return complaint([&] { (void)reid::manifest_from_json(manifest.dump(), "x.onnx"); });
}

/// The complaint about a manifest with one value changed.
std::string with(const char* pointer, const nlohmann::json& value) {
    nlohmann::json manifest = small_manifest();
    manifest[nlohmann::json::json_pointer(pointer)] = value;
    return complaint_about(manifest);
}

}  // namespace

TEST_CASE("a manifest is read with its defaults") {
    const reid::Manifest manifest = reid::manifest_from_json(small_manifest().dump(), "x.onnx");
    CHECK(manifest.preprocess.height_px == 4);
    CHECK_FALSE(manifest.preprocess.bicubic);
    CHECK_FALSE(manifest.preprocess.bgr);
    CHECK(manifest.input.shape == std::vector<std::int64_t>{reid::kDynamic, 4, 2, 3});
    CHECK(manifest.batch_profile.maximum == 4);
    CHECK_FALSE(manifest.engine);
    CHECK(reid::manifest_from_json(small_engine_manifest().dump(), "x.engine").engine->gpu_name == "Test GPU");
}

TEST_CASE("what is not JSON or of another version is refused, saying what to do") {
    CHECK(contains(complaint([] { (void)reid::manifest_from_json("{", "x.onnx"); }), "x.onnx: the manifest is not JSON"));
    CHECK(contains(complaint([] { (void)reid::manifest_from_json("[]", "x.onnx"); }), "format version null"));
    CHECK(contains(complaint([] { (void)reid::manifest_from_json("[1e999]", "x.onnx"); }), "not JSON"));
    const std::string deep(1'000'000, '[');
    CHECK(contains(complaint([&] { (void)reid::manifest_from_json(deep, "x.onnx"); }), "nested too deeply"));
    CHECK(contains(with("/format_version", 2), "format version 2, this reidruntime reads 1"));
    CHECK(contains(with("/format_version", 2), "Export the artifact again"));
}

TEST_CASE("every departure from the schema is refused") {
    for (const auto& [pointer, value] : std::vector<std::pair<const char*, nlohmann::json>>{
             {"/preprocess/height_px", "4"},
             {"/preprocess/height_px", 0},
             {"/preprocess/resize", "lanczos"},
             {"/preprocess/mean", {0, 0}},
             {"/preprocess/std", {1, 1, 0}},
             {"/preprocess/in_graph", nullptr},
             {"/precision", "fp8"},
             {"/metric", "manhattan"},
             {"/input/shape", {nullptr, -4, 2, 3}},
             {"/architecture/feature_dim", 1.5},
             {"/surprise", true},
             {"/batch_profile/minimum", 9},
             {"/engine", "none"}}) {
        CAPTURE(pointer);
        CHECK(contains(with(pointer, value), "manifest"));
    }
    nlohmann::json incomplete = small_manifest();
    incomplete.erase("metric");
    CHECK(contains(complaint_about(incomplete), "metric"));
}

TEST_CASE("sizes that would not fit into memory are refused") {
    CHECK(contains(with("/preprocess/height_px", 1'000'000'000), "height_px is 1000000000"));
    CHECK(contains(with("/architecture/feature_dim", 1'000'000'000'000'000'000), "feature_dim"));
    CHECK(contains(with("/batch_profile/maximum", 18'000'000'000'000'000'000U), "maximum"));
}

TEST_CASE("a manifest that does not fit its file is refused with expected and found") {
    const reid::Manifest manifest = reid::manifest_from_json(small_manifest().dump(), "x.onnx");
    const std::vector<reid::TensorSpec> inputs = {manifest.input}, outputs = {manifest.output};
    const auto about = [&](const reid::Manifest& wrong, const std::vector<reid::TensorSpec>& in,
                           const std::vector<reid::TensorSpec>& out) {
        return complaint([&] { reid::check_manifest(wrong, in, out, "x.onnx"); });
    };
    CHECK(about(manifest, inputs, outputs).empty());
    CHECK(contains(about(manifest, {{"images", "float32", {-1, 4, 2, 3}}}, outputs),
                   "the manifest expects uint8 [batch, 4, 2, 3], the file has float32 [batch, 4, 2, 3]"));
    CHECK(contains(about(manifest, {{"images", "uint8", {8, 4, 2, 3}}}, outputs), "the file has uint8 [8, 4, 2, 3]"));
    CHECK(contains(about(manifest, inputs, {{"f_t", "float32", {-1, 24}}}), "which has 'f_t'"));
    CHECK(contains(about(manifest, {inputs[0], inputs[0]}, outputs), "expected one input"));
    reid::Manifest wrong = manifest;
    wrong.preprocess.width_px = 3;
    CHECK(contains(about(wrong, inputs, outputs), "asks for 4x3 images in NHWC"));
    wrong = manifest;
    wrong.feature_dim = 25;
    CHECK(contains(about(wrong, inputs, outputs), "25 dimensions"));
    wrong = manifest;
    wrong.preprocess.in_graph = false;
    CHECK(contains(about(wrong, inputs, outputs), "must be float32"));
    wrong = manifest;
    wrong.input.shape[0] = 8;
    CHECK(contains(about(wrong, inputs, outputs), "static batch 8"));
}
