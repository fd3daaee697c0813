#include "preprocess.h"

#include <array>
#include <utility>

#include "error.h"
#include "resize.h"

namespace reid {
namespace {

ImageView checked(const reid_image& image, std::size_t index) {
    const std::size_t row_bytes = image.row_bytes == 0 ? 3 * image.width_px : image.row_bytes;
    const bool has_size = is_side(image.height_px) && is_side(image.width_px) && row_bytes / 3 >= image.width_px;
    if (image.pixels == nullptr || !has_size) {
        fail_image("image " + std::to_string(index) + ": expected a path, the bytes of a JPEG file, or pixels with " +
                   "their height and width, 1 to " + std::to_string(kMaxSidePx) + "; got " + std::to_string(image.height_px) + "x" +
                   std::to_string(image.width_px) + " pixels, " + std::to_string(image.row_bytes) + " bytes a row.");
    }
    return {image.height_px, image.width_px, image.pixels, row_bytes};
}

/// Call put(from, to, channel) for every value: where it is in N x H x W x 3, and where it goes.
template <typename Put>
void for_each_value(std::size_t size, const Preprocess& preprocess, Put put) {
    const std::size_t image = image_bytes(preprocess), plane = image / 3;
    for (std::size_t start = 0; start < size; start += image) {
        for (std::size_t channel = 0; channel < 3; ++channel) {
            for (std::size_t i = 0; i < plane; ++i) {
                const std::size_t from = start + 3 * i + channel;
                put(from, preprocess.nchw ? start + channel * plane + i : from, channel);
            }
        }
    }
}

}  // namespace

void prepare_image(const reid_image& image, std::size_t index, const Preprocess& preprocess, std::uint8_t* out,
                   Jpegs wanted) {
    const auto fit = [&](const ImageView& pixels) {
        resize(pixels, preprocess.height_px, preprocess.width_px, preprocess.bicubic, out);
    };
    if (image.path != nullptr) {
        fit(view(decode_jpeg_file(image.path, wanted)));
    } else if (image.jpeg != nullptr) {
        fit(view(decode_jpeg({image.jpeg, image.jpeg_bytes}, "image " + std::to_string(index), wanted)));
    } else {
        fit(checked(image, index));
    }
    const bool is_file = image.path != nullptr || image.jpeg != nullptr;
    if (preprocess.bgr != (preprocess.bgr_pixels && !is_file)) {
        for (std::size_t i = 0; i < image_bytes(preprocess); i += 3) std::swap(out[i], out[i + 2]);
    }
}

void normalize(std::span<const std::uint8_t> batch, const Preprocess& preprocess, float* out) {
    // In this order and precision, as Python computes it: the two agree to the last bit.
    std::array<float, 3> scale{}, shift{};
    for (std::size_t c = 0; c < 3; ++c) {
        scale[c] = static_cast<float>(1.0 / (255.0 * preprocess.std[c]));
        shift[c] = static_cast<float>(-preprocess.mean[c] / preprocess.std[c]);
    }
    for_each_value(batch.size(), preprocess, [&](std::size_t from, std::size_t to, std::size_t channel) {
        out[to] = static_cast<float>(batch[from]) * scale[channel] + shift[channel];
    });
}

void planes(std::span<const std::uint8_t> batch, const Preprocess& preprocess, std::uint8_t* out) {
    for_each_value(batch.size(), preprocess,
                   [&](std::size_t from, std::size_t to, std::size_t) { out[to] = batch[from]; });
}

}  // namespace reid
