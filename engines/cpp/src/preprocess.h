// From an image to the bytes that an artifact takes.
#pragma once

#include <span>

#include "decode.h"
#include "manifest.h"
#include "reidruntime/reidruntime.h"

namespace reid {

/// Bytes of one image in the artifact's size: height_px * width_px * 3.
inline std::size_t image_bytes(const Preprocess& preprocess) {
    return preprocess.height_px * preprocess.width_px * 3;
}

/// Bring one image to the manifest's size and channel order.
///
/// @param index its place in the call, for an error message.
/// @param out receives image_bytes() bytes: uint8, height_px x width_px x 3.
/// @param wanted which JPEG files to take.
/// @throws Error (image).
void prepare_image(const reid_image& image, std::size_t index, const Preprocess& preprocess, std::uint8_t* out,
                   Jpegs wanted = Jpegs::kAll);

/// Scale to [0, 1], subtract the mean, divide by the deviation.
///
/// @param batch uint8, N x height_px x width_px x 3, in the manifest's channel order.
/// @param out receives as many floats, N x 3 x H x W for NCHW.
void normalize(std::span<const std::uint8_t> batch, const Preprocess& preprocess, float* out);

/// Reorder N x H x W x 3 to N x 3 x H x W.
void planes(std::span<const std::uint8_t> batch, const Preprocess& preprocess, std::uint8_t* out);

}  // namespace reid
