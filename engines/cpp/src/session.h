// A session: an artifact opened on this machine, from images to embeddings.
#pragma once

#include <span>

#include "backend.h"
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
    std::size_t batch_size(std::size_t wanted) const;
    template <typename NextBatch>
    void answer_all(NextBatch next, float* features) const;
    Answer start(std::span<const std::uint8_t> batch, float* features) const;

    std::size_t num_threads_;
    Opened opened_;
    std::string description_;
};

}  // namespace reid
