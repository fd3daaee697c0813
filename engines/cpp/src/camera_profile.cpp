#include "camera_profile.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "error.h"
#include "file.h"
#include "json_format.h"
#include "schemas.h"
#include "sha256.h"

namespace reid {
namespace {

using nlohmann::json;

const std::string kMeasureAgain = "Write it again with reidexport adapt.";
constexpr double kSmallestNorm = 1e-12;

OnnxFile onnx_file(const json& data) { return {data.at("name"), data.at("sha256")}; }

FeatureStatistics statistics(const json& data, const std::string& origin) {
    FeatureStatistics result{data.at("mean"), data.at("deviation")};
    const auto is_finite = [](float value) { return std::isfinite(value); };
    const auto divides = [](float value) { return std::isfinite(value) && value > 0; };
    if (!std::all_of(result.mean.begin(), result.mean.end(), is_finite) ||
        !std::all_of(result.deviation.begin(), result.deviation.end(), divides)) {
        fail_artifact(origin + ": expected finite means and positive, finite deviations, in float32. " + kMeasureAgain);
    }
    return result;
}

CameraStatistics camera(const json& data, const std::string& origin) {
    const json network = data.value("network", json());
    return {data.at("camid").get<std::size_t>() + 1, statistics(data, origin),
            network.is_null() ? std::nullopt : std::optional(onnx_file(network))};
}

void check_lengths(const CameraProfile& profile, const std::string& origin) {
    const std::size_t dim = profile.all_crops.mean.size();
    const auto fits = [&](const FeatureStatistics& each) {
        return each.mean.size() == dim && each.deviation.size() == dim;
    };
    const auto camera_fits = [&](const CameraStatistics& each) { return fits(each.features); };
    if (!fits(profile.all_crops) || !std::all_of(profile.cameras.begin(), profile.cameras.end(), camera_fits)) {
        fail_artifact(origin + ": its means and deviations differ in length. " + kMeasureAgain);
    }
}

void check_order(const std::vector<CameraStatistics>& cameras, const std::string& origin) {
    std::string camids;
    bool is_in_order = true;
    for (std::size_t i = 0; i < cameras.size(); ++i) {
        camids += (i == 0 ? "" : ", ") + std::to_string(cameras[i].camera - 1);
        is_in_order = is_in_order && (i == 0 || cameras[i - 1].camera < cameras[i].camera);
    }
    if (!is_in_order) {
        fail_artifact(origin + ": expected each camera once, in order, got camids [" + camids + "]. " + kMeasureAgain);
    }
}

void to_unit_length(std::span<float> row) {
    double squares = 0;
    for (const float value : row) squares += static_cast<double>(value) * static_cast<double>(value);
    const double norm = std::max(std::sqrt(squares), kSmallestNorm);
    for (float& value : row) value = static_cast<float>(static_cast<double>(value) / norm);
}

}  // namespace

CameraProfile camera_profile_from_json(const std::string& text, const std::string& origin) {
    static const JsonFormat format("the camera profile", kCamerasSchema, kMeasureAgain);
    CameraProfile profile = format.read(text, origin, [&](const json& data) {
        CameraProfile read{onnx_file(data.at("artifact")), data.at("standardizes"),
                           statistics(data.at("all_crops"), origin), {}};
        const auto cameras = data.find("cameras");
        if (cameras == data.end()) return read;
        for (const json& each : *cameras) read.cameras.push_back(camera(each, origin));
        return read;
    });
    check_lengths(profile, origin);
    check_order(profile.cameras, origin);
    return profile;
}

CameraProfile read_camera_profile(const std::string& path, const std::string& artifact, const Manifest& manifest) {
    const std::vector<std::uint8_t> text = read_file(path, fail_artifact);
    CameraProfile profile = camera_profile_from_json({text.begin(), text.end()}, path);
    const std::string own =
        manifest.engine ? manifest.engine->onnx_sha256 : sha256(read_file(artifact, fail_artifact));
    if (profile.artifact.sha256 != own) {
        fail_artifact(path + ": the profile was measured on the features of " + profile.artifact.name + " (sha256 " +
                      profile.artifact.sha256.substr(0, 12) + "…), and " + artifact + " is another file (" +
                      own.substr(0, 12) + "…). Pass the profile that was written with it, or leave it out.");
    }
    if (profile.all_crops.mean.size() != manifest.feature_dim) {
        fail_artifact(path + ": the profile is of features of " + std::to_string(profile.all_crops.mean.size()) +
                      " elements, those of " + artifact + " have " + std::to_string(manifest.feature_dim) + ". " +
                      kMeasureAgain);
    }
    const auto has_network = [](const CameraStatistics& each) { return each.network.has_value(); };
    if (manifest.engine && std::any_of(profile.cameras.begin(), profile.cameras.end(), has_network)) {
        fail_artifact(path + ": the profile has an ONNX file for each camera, and " + artifact + " is an engine. Open " +
                      profile.artifact.name + ", or adapt without --per-camera.");
    }
    return profile;
}

Standardizer::Standardizer(CameraProfile profile, bool takes_mean, bool unit_length)
    : profile_(std::move(profile)), takes_mean_(takes_mean || profile_.cameras.empty()), unit_length_(unit_length) {}

std::vector<std::size_t> Standardizer::places(std::span<const reid_image> images) const {
    const std::vector<CameraStatistics>& cameras = profile_.cameras;
    std::vector<std::size_t> result;
    result.reserve(images.size());
    const auto is_before = [](const CameraStatistics& each, std::size_t camera) { return each.camera < camera; };
    for (const reid_image& image : images) {
        const auto found = std::lower_bound(cameras.begin(), cameras.end(), image.camera, is_before);
        const bool is_known = found != cameras.end() && found->camera == image.camera;
        if (!is_known && !takes_mean_) refuse(image, result.size());
        result.push_back(is_known ? static_cast<std::size_t>(found - cameras.begin()) : cameras.size());
    }
    return result;
}

std::vector<std::size_t> Standardizer::places_without_cameras(std::size_t num_images) const {
    if (!takes_mean_) {
        fail_input("a camera profile is in use, and reid_run() does not take the cameras of images. Call reid_embed() "
                   "with reid_image.pixels and .camera: pixels that have the artifact's size are not resized.");
    }
    return std::vector<std::size_t>(num_images, profile_.cameras.size());
}

void Standardizer::standardize(float* rows, std::span<const std::size_t> places) const {
    if (!profile_.standardizes) return;
    for (const std::size_t place : places) {
        const bool is_known = place < profile_.cameras.size();
        const FeatureStatistics& own = is_known ? profile_.cameras[place].features : profile_.all_crops;
        const std::span<float> row(rows, own.mean.size());
        for (std::size_t i = 0; i < row.size(); ++i) row[i] = (row[i] - own.mean[i]) / own.deviation[i];
        if (unit_length_) to_unit_length(row);
        rows += row.size();
    }
}

void Standardizer::refuse(const reid_image& image, std::size_t index) const {
    std::string known;
    for (const CameraStatistics& each : profile_.cameras) {
        known += (known.empty() ? "" : ", ") + std::to_string(each.camera);
    }
    const std::string name = image.path != nullptr ? image.path : "image " + std::to_string(index);
    const std::string found =
        image.camera == 0 ? " does not tell its camera" : " is of camera " + std::to_string(image.camera);
    fail_input(name + found + ", and the camera profile is of cameras " + known +
               ". Adapt again with crops of all cameras, or take the mean of all for the others: --unknown-camera mean "
               "(in C: reid_options.unknown_camera_mean = 1).");
}

}  // namespace reid
