// Camera profiles: what every camera of a site does to features, taken off again. Python's
// reidruntime/artifact/camera_profile.py is their definition.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "manifest.h"
#include "reidruntime/reidruntime.h"

namespace reid {

struct OnnxFile {
    std::string name;
    std::string sha256;
};

/// Mean and standard deviation of every element of the features of some crops.
struct FeatureStatistics {
    std::vector<float> mean;
    std::vector<float> deviation;
};

struct CameraStatistics {
    std::size_t camera;  ///< from 1: the file's camid is from 0
    FeatureStatistics features;
    std::optional<OnnxFile> network;  ///< what embeds its images, where every camera has a network of its own
};

struct CameraProfile {
    OnnxFile artifact;  ///< whose features were measured
    bool standardizes;  ///< features are changed; false where that was found to cost more than it gives
    FeatureStatistics all_crops;
    std::vector<CameraStatistics> cameras;  ///< in order; none where crops told no camera
};

/// Parse and validate a profile.
///
/// @param origin what to call the source in an error message.
/// @throws Error (artifact): not JSON, another format version, or not valid.
CameraProfile camera_profile_from_json(const std::string& text, const std::string& origin);

/// Read a profile, and check that it was measured on an artifact's features.
///
/// @param artifact path of an ONNX file or an engine.
/// @param manifest of the artifact.
/// @throws Error (artifact): it cannot be read or is not valid, or belongs to another artifact.
CameraProfile read_camera_profile(const std::string& path, const std::string& artifact, const Manifest& manifest);

/// A profile's arithmetic. An image's place is that of its camera in the profile, or behind all of them: then the
/// statistics of all crops are its own.
class Standardizer {
public:
    /// @param takes_mean images of a camera that the profile does not have get the statistics of all crops.
    /// @param unit_length make features of unit length afterwards.
    Standardizer(CameraProfile profile, bool takes_mean, bool unit_length);

    /// The places of images.
    ///
    /// @throws Error (input): an image's camera is not in the profile, and is to be refused.
    std::vector<std::size_t> places(std::span<const reid_image> images) const;

    /// The places of images whose cameras cannot be given.
    ///
    /// @throws Error (input): the profile needs them.
    std::vector<std::size_t> places_without_cameras(std::size_t num_images) const;

    /// Subtract the mean and divide by the deviation, in place: one row for each place.
    void standardize(float* rows, std::span<const std::size_t> places) const;

private:
    [[noreturn]] void refuse(const reid_image& image, std::size_t index) const;

    CameraProfile profile_;
    bool takes_mean_;
    bool unit_length_;
};

}  // namespace reid
