// reidruntime for C++20: the C API with ownership, vectors and exceptions. Header only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "reidruntime/reidruntime.h"

namespace reidruntime {

/// What a call of the C API complained about.
class Error : public std::runtime_error {
public:
    Error(reid_status status, const std::string& message) : std::runtime_error(message), status_(status) {}

    /// Which kind of failure it is.
    [[nodiscard]] reid_status status() const noexcept { return status_; }

private:
    reid_status status_;
};

namespace detail {

inline void check(reid_status status) {
    if (status != REID_OK) throw Error(status, reid_last_error());
}

}  // namespace detail

/// Embeddings, one row per image.
struct Features {
    std::size_t dim = 0;
    std::vector<float> values;  ///< rows * dim, row by row

    /// How many rows there are.
    [[nodiscard]] std::size_t rows() const noexcept { return dim == 0 ? 0 : values.size() / dim; }

    /// The embedding of image `row`.
    [[nodiscard]] std::span<const float> operator[](std::size_t row) const {
        return std::span(values).subspan(row * dim, dim);
    }
};

/// Pixels that somebody else owns, RGB unless the options' `bgr_pixels` is 1, as `reid_image` wants them; row_bytes 0 means rows without gaps.
/// A camera is for a camera profile: from 1, 0 where it is not known.
[[nodiscard]] inline reid_image image_from_pixels(const std::uint8_t* pixels, std::size_t height_px,
                                                  std::size_t width_px, std::size_t row_bytes = 0,
                                                  std::size_t camera = 0) {
    return {nullptr, pixels, height_px, width_px, row_bytes, nullptr, 0, camera};
}

/// A JPEG file; somebody else owns the path. The camera is as for pixels.
[[nodiscard]] inline reid_image image_from_file(const char* path, std::size_t camera = 0) {
    return {path, nullptr, 0, 0, 0, nullptr, 0, camera};
}

/// The bytes of a JPEG file that somebody else owns. The camera is as for pixels.
[[nodiscard]] inline reid_image image_from_jpeg(std::span<const std::uint8_t> jpeg, std::size_t camera = 0) {
    return {nullptr, nullptr, 0, 0, 0, jpeg.data(), jpeg.size(), camera};
}

/// Options with their size filled in.
[[nodiscard]] inline reid_options default_options() {
    reid_options options{};
    options.size = sizeof options;
    return options;
}

/// An opened artifact. Any number of threads may use it at once. Every member throws Error where the C API fails.
class Session {
public:
    /// Open an ONNX file or a TensorRT engine; see reid_open().
    explicit Session(const std::string& artifact, const reid_options& options = default_options()) {
        reid_session* opened = nullptr;
        detail::check(reid_open(artifact.c_str(), &options, &opened));
        session_.reset(opened);
    }

    /// Embed files and pixels in any mixture; see reid_embed(). batch_size 0 is the artifact's own.
    [[nodiscard]] Features embed(std::span<const reid_image> images, std::size_t batch_size = 0) const {
        Features features = empty(images.size());
        detail::check(reid_embed(get(), images.data(), images.size(), batch_size, features.values.data()));
        return features;
    }

    /// Embed JPEG files; for a camera profile each with its camera, from 1, 0 where it is not known.
    [[nodiscard]] Features embed(std::span<const std::string> paths, std::size_t batch_size = 0,
                                 std::span<const std::size_t> cameras = {}) const {
        if (!cameras.empty() && cameras.size() != paths.size()) {
            throw Error(REID_ERROR_INPUT, "expected a camera for each of " + std::to_string(paths.size()) +
                                              " images, got " + std::to_string(cameras.size()));
        }
        std::vector<reid_image> images;
        images.reserve(paths.size());
        for (const std::string& path : paths) {
            images.push_back(image_from_file(path.c_str(), cameras.empty() ? 0 : cameras[images.size()]));
        }
        return embed(std::span<const reid_image>(images), batch_size);
    }

    /// Answer N x height_px x width_px x 3 pixels that already have the artifact's size and channel order; see reid_run().
    [[nodiscard]] Features run(std::span<const std::uint8_t> pixels) const {
        const std::size_t row = height_px() * width_px() * 3;
        if (pixels.size() % row != 0) {
            throw Error(REID_ERROR_INPUT, "expected a multiple of " + std::to_string(row) + " bytes, got " +
                                              std::to_string(pixels.size()));
        }
        Features features = empty(pixels.size() / row);
        detail::check(reid_run(get(), pixels.data(), pixels.size() / row, features.values.data()));
        return features;
    }

    [[nodiscard]] std::size_t feature_dim() const { return reid_feature_dim(get()); }
    [[nodiscard]] std::size_t height_px() const { return reid_height_px(get()); }
    [[nodiscard]] std::size_t width_px() const { return reid_width_px(get()); }
    [[nodiscard]] std::string metric() const { return reid_metric(get()); }
    [[nodiscard]] std::string precision() const { return reid_precision(get()); }
    [[nodiscard]] std::string manifest_json() const { return reid_manifest_json(get()); }
    [[nodiscard]] std::string description() const { return reid_description(get()); }

    /// The handle of the C API; it stays this object's.
    [[nodiscard]] reid_session* get() const noexcept { return session_.get(); }

private:
    struct Close {
        void operator()(reid_session* session) const noexcept { reid_close(session); }
    };

    [[nodiscard]] Features empty(std::size_t rows) const {
        return {feature_dim(), std::vector<float>(rows * feature_dim())};
    }

    std::unique_ptr<reid_session, Close> session_;
};

/// Reads images without an artifact. Any number of threads may use it at once.
class Reader {
public:
    /// See reid_open_reader().
    explicit Reader(const reid_reader_options& options) : row_bytes_(options.height_px * options.width_px * 3) {
        reid_reader* opened = nullptr;
        detail::check(reid_open_reader(&options, &opened));
        reader_.reset(opened);
    }

    /// Read a batch into `pixels`, which has room for all of it; see reid_read().
    ///
    /// @returns the status of each image; an image that cannot be read is not thrown.
    [[nodiscard]] std::vector<reid_status> read(std::span<const reid_image> images, std::span<std::uint8_t> pixels) const {
        if (pixels.size() < images.size() * row_bytes_) {
            throw Error(REID_ERROR_INPUT, "expected room for " + std::to_string(images.size() * row_bytes_) +
                                              " bytes, got " + std::to_string(pixels.size()));
        }
        std::vector<reid_status> statuses(images.size());
        const reid_status status = reid_read(reader_.get(), images.data(), images.size(), pixels.data(), statuses.data());
        if (status != REID_ERROR_IMAGE) detail::check(status);
        return statuses;
    }

private:
    struct Close {
        void operator()(reid_reader* reader) const noexcept { reid_close_reader(reader); }
    };

    std::size_t row_bytes_;
    std::unique_ptr<reid_reader, Close> reader_;
};

}  // namespace reidruntime
