// JPEG files, decoded bit-equal to the Python runtime and so to Pillow.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "image.h"

namespace reid {

/// Which JPEG files to take.
enum class Jpegs {
    kAll,       ///< what Pillow takes: also those that libjpeg calls odd
    kOrdinary,  ///< those without a flaw and of at most 2^25 pixels, which every libjpeg decodes to the same pixels
};

/// Decode the bytes of a color or gray JPEG file to RGB. As in training code, an EXIF orientation is not applied.
///
/// @param name what to call it in an error message.
/// @throws Error (image): empty, cut, damaged, not a JPEG, CMYK, or too large.
Image decode_jpeg(std::span<const std::uint8_t> data, const std::string& name, Jpegs wanted = Jpegs::kAll);

/// The same for a file.
///
/// @throws Error (image): also where it cannot be read.
Image decode_jpeg_file(const std::string& path, Jpegs wanted = Jpegs::kAll);

}  // namespace reid
