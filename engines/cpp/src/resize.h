// Resizing that is bit-equal to Pillow's Image.resize, as in Python's reidruntime/images/resize.py.
#pragma once

#include "image.h"

namespace reid {

/// Resize an image: the horizontal, then the vertical pass, in 8-bit fixed point with 22-bit weights, widened by the scale
/// when shrinking; each pass is left out when that side keeps its length.
///
/// @param bicubic else bilinear.
/// @param out receives height * width * 3 bytes.
void resize(const ImageView& image, std::size_t height, std::size_t width, bool bicubic, std::uint8_t* out);

}  // namespace reid
