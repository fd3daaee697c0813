#include "camera_profile.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "reidruntime/reidruntime.hpp"
#include "sha256.h"
#include "support.h"

namespace {

const std::string kArtifact = "an ONNX file";

std::string sha256_of(const std::string& text) {
    return reid::sha256({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

nlohmann::json small_profile() { return small_camera_profile(sha256_of(kArtifact)); }

std::string complaint_about(const nlohmann::json& profile) {
    return complaint([&] { (void)reid::camera_profile_from_json(profile.dump(), "site"); });
}

/// The complaint about a profile with one value changed.
std::string with(const char* pointer, const nlohmann::json& value) {
    nlohmann::json profile = small_profile();
    profile[nlohmann::json::json_pointer(pointer)] = value;
    return complaint_about(profile);
}

reid::Standardizer standardizer(bool takes_mean, bool unit_length = false,
                                const nlohmann::json& profile = small_profile()) {
    return {reid::camera_profile_from_json(profile.dump(), "site"), takes_mean, unit_length};
}

/// A file of each camera.
std::vector<reid_image> images_of(const std::vector<std::size_t>& cameras) {
    std::vector<reid_image> images;
    for (const std::size_t camera : cameras) images.push_back(reidruntime::image_from_file("x.jpg", camera));
    return images;
}

}  // namespace

TEST_CASE("a profile is read with its defaults, its cameras from 1") {
    const reid::CameraProfile profile = reid::camera_profile_from_json(small_profile().dump(), "site");
    CHECK(profile.artifact.name == "site.onnx");
    CHECK(profile.standardizes);
    REQUIRE(profile.cameras.size() == 2);
    CHECK(profile.cameras[1].camera == 3);
    CHECK(profile.cameras[1].features.mean == std::vector<float>(24, 3));
    CHECK_FALSE(profile.cameras[1].network);
    nlohmann::json changed = small_profile();
    changed["cameras"][1]["network"] = {{"name", "site-c3.onnx"}, {"sha256", "0"}};
    CHECK(reid::camera_profile_from_json(changed.dump(), "site").cameras[1].network->name == "site-c3.onnx");
    changed.erase("cameras");
    CHECK(reid::camera_profile_from_json(changed.dump(), "site").cameras.empty());
}

TEST_CASE("what is not a profile is refused, saying what to do") {
    const std::string about_half = complaint([] { (void)reid::camera_profile_from_json("{", "site"); });
    CHECK(contains(about_half, "site: the camera profile is not JSON"));
    CHECK(contains(with("/format_version", 7), "the camera profile has format version 7, this reidruntime reads 1"));
    CHECK(contains(with("/standardise", true), "the camera profile is not valid"));
    CHECK(contains(with("/standardise", true), "reidexport adapt"));
    CHECK(contains(with("/all_crops/deviation/3", 0), "the camera profile is not valid"));
    CHECK(contains(with("/all_crops/num_crops", 0), "the camera profile is not valid"));
    CHECK(contains(with("/all_crops/mean/0", "a lot"), "the camera profile is not valid"));
    CHECK(contains(with("/cameras/0/camid", -1), "the camera profile is not valid"));
    CHECK(contains(with("/cameras/1/camid", 2'000'000'000'000'000'000), "the camera profile is not valid"));
    CHECK(contains(with("/cameras/0/mean", {1.0}), "its means and deviations differ in length"));
    CHECK(contains(with("/all_crops/deviation", {1.0}), "its means and deviations differ in length"));
}

TEST_CASE("numbers that float32 does not hold are refused") {
    CHECK(contains(with("/all_crops/mean/0", 1e300), "expected finite means and positive, finite deviations"));
    CHECK(contains(with("/cameras/1/deviation/0", 1e300), "expected finite means"));
    CHECK(contains(with("/cameras/1/deviation/0", 1e-300), "expected finite means"));
}

TEST_CASE("cameras of a profile are in order and once") {
    CHECK(contains(with("/cameras/1/camid", 0), "expected each camera once, in order, got camids [0, 0]"));
    CHECK(contains(with("/cameras/0/camid", 5), "got camids [5, 2]"));
}

TEST_CASE("a profile is bound to its artifact") {
    const TemporaryFolder folder;
    const std::string artifact = folder.write("site.onnx", kArtifact);
    const auto reading = [&](const nlohmann::json& profile, const std::string& of, const nlohmann::json& manifest) {
        const std::string path = folder.write("site.cameras.json", profile.dump());
        const reid::Manifest its_own = reid::manifest_from_json(manifest.dump(), "x");
        return complaint([&] { (void)reid::read_camera_profile(path, of, its_own); });
    };
    CHECK(reading(small_profile(), artifact, small_manifest()).empty());
    const std::string other = folder.write("other.onnx", "another ONNX file");
    const std::string about_other = reading(small_profile(), other, small_manifest());
    CHECK(contains(about_other, "site.cameras.json: the profile was measured on the features of site.onnx (sha256 "));
    CHECK(contains(about_other, "other.onnx is another file"));
    nlohmann::json manifest = small_manifest();
    manifest["architecture"]["feature_dim"] = 25;
    CHECK(contains(reading(small_profile(), artifact, manifest),
                   "of features of 24 elements, those of " + artifact + " have 25"));
    CHECK(contains(complaint([&] { (void)reid::read_camera_profile(artifact + ".none", artifact, {}); }),
                   "site.onnx.none: cannot be read (No such file or directory)"));
}

TEST_CASE("an engine's profile is that of the ONNX file it was built from, without networks") {
    const TemporaryFolder folder;
    nlohmann::json profile = small_profile(), manifest = small_engine_manifest();
    manifest["engine"]["onnx_sha256"] = sha256_of(kArtifact);
    const auto reading = [&] {
        const std::string path = folder.write("site.cameras.json", profile.dump());
        return complaint([&] {
            (void)reid::read_camera_profile(path, "site.engine", reid::manifest_from_json(manifest.dump(), "x"));
        });
    };
    CHECK(reading().empty());
    profile["cameras"][1]["network"] = {{"name", "site-c3.onnx"}, {"sha256", "0"}};
    CHECK(contains(reading(), "site.engine is an engine. Open site.onnx, or adapt without --per-camera"));
    manifest["engine"]["onnx_sha256"] = "0";
    CHECK(contains(reading(), "site.engine is another file (0…)"));
}

TEST_CASE("features are standardized by the camera of their image, in place") {
    const reid::Standardizer site = standardizer(true);
    const std::vector<reid_image> images = images_of({3, 1, 2, 0});
    const std::vector<std::size_t> places = site.places(images);
    CHECK(places == std::vector<std::size_t>{1, 0, 2, 2});
    std::vector<float> features(4 * 24);
    std::iota(features.begin(), features.end(), 0.1F);
    std::vector<float> expected = features;
    const float means[] = {3, 1, 10, 10}, deviations[] = {0.5, 2, 4, 4};
    for (std::size_t i = 0; i < expected.size(); ++i) expected[i] = (expected[i] - means[i / 24]) / deviations[i / 24];
    site.standardize(features.data(), places);
    CHECK(features == expected);
    nlohmann::json unchanged = small_profile();
    unchanged["standardizes"] = false;
    standardizer(true, true, unchanged).standardize(features.data(), places);
    CHECK(features == expected);
}

TEST_CASE("rows have unit length again where the artifact gives it, and zeros stay zeros") {
    std::vector<float> features(2 * 24, 3);
    features[0] = 7;
    standardizer(true, true).standardize(features.data(), std::vector<std::size_t>{0, 1});
    const double length = std::sqrt(std::inner_product(features.begin(), features.begin() + 24, features.begin(), 0.0));
    CHECK(length == doctest::Approx(1).epsilon(1e-6));
    CHECK(std::vector<float>(features.begin() + 24, features.end()) == std::vector<float>(24, 0));
}

TEST_CASE("images of unknown cameras are refused by name, unless the mean of all is wanted") {
    const reid::Standardizer site = standardizer(false);
    CHECK(site.places(images_of({1, 3})) == std::vector<std::size_t>{0, 1});
    const auto about = [&](reid_image image) {
        const std::vector<reid_image> images = {reidruntime::image_from_file("good.jpg", 1), image};
        return complaint([&] { (void)site.places(images); });
    };
    CHECK(contains(about(reidruntime::image_from_file("a.jpg", 2)),
                   "a.jpg is of camera 2, and the camera profile is of cameras 1, 3. Adapt again"));
    CHECK(contains(about(reidruntime::image_from_file("a.jpg")), "a.jpg does not tell its camera, and the camera"));
    CHECK(contains(about(reidruntime::image_from_jpeg({}, 7)), "image 1 is of camera 7"));
    CHECK(contains(about(reidruntime::image_from_jpeg({})), "(in C: reid_options.unknown_camera_mean = 1)"));
}

TEST_CASE("images whose cameras cannot be given get the statistics of all crops, where that is wanted") {
    CHECK(contains(complaint([] { (void)standardizer(false).places_without_cameras(2); }), "Call reid_embed() with"));
    CHECK(standardizer(true).places_without_cameras(2) == std::vector<std::size_t>{2, 2});
    nlohmann::json profile = small_profile();
    profile.erase("cameras");
    CHECK(standardizer(false, false, profile).places_without_cameras(1) == std::vector<std::size_t>{0});
    CHECK(standardizer(false, false, profile).places(images_of({5})) == std::vector<std::size_t>{0});
}
