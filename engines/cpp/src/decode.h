// JPEG files, decoded bit-equal to the Python runtime and so to Pillow.
#pragma once

#include <string>

#include "image.h"

namespace reid {

/// Decode a colour or grey JPEG file to RGB. As in training code, an EXIF orientation is not applied.
///
/// @throws Error (image): missing, empty, cut, damaged, not a JPEG, CMYK, or too large.
Image decode_jpeg_file(const std::string& path);

}  // namespace reid
