// A session: an artifact opened on this machine, from images to embeddings.
#pragma once

#include <map>
#include <optional>
#include <span>

#include "backend.h"
#include "camera_profile.h"
#include "reidruntime/reidruntime.h"

namespace reid {

class Session {
public:
    /// Check an artifact against its manifest and load it; see reid_open().
    Session(const std::string& artifact, const reid_options& options);

    /// See reid_embed().
    void embed(std::span<const reid_image> images, std::size_t batch_size, float* features) const;

    /// See reid_run().
    void run(std::span<const std::uint8_t> pixels, float* features) const;

    const Manifest& manifest() const { return opened_.manifest; }
    const std::string& description() const { return description_; }

private:
    /// Of images in the camera profile that is in use; empty without one.
    using Places = std::span<const std::size_t>;

    void use_profile(CameraProfile profile, const std::string& artifact, const reid_options& options);
    std::size_t batch_size(std::size_t wanted) const;
    template <typename NextBatch>
    void answer_all(NextBatch next, Places places, float* features) const;
    Answer start(std::span<const std::uint8_t> batch, Places places, float* features) const;
    Answer start_by_camera(std::span<const std::uint8_t> batch, Places places, float* features) const;

    std::size_t num_threads_;
    Opened opened_;
    std::map<std::size_t, Opened> networks_;  // of the cameras that have one of their own, by place in the profile
    std::optional<Standardizer> standardizer_;
    std::string description_;
};

}  // namespace reid
