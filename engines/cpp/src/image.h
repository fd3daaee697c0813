// An image in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace reid {

// The product of such a side, an artifact's side and three channels cannot overflow.
constexpr std::size_t kMaxSidePx = std::size_t{1} << 24;

inline bool is_side(std::size_t side_px) { return side_px >= 1 && side_px <= kMaxSidePx; }

/// uint8, height x width x 3, without gaps.
struct Image {
    std::size_t height;
    std::size_t width;
    std::vector<std::uint8_t> pixels;
};

/// The same, in somebody else's memory; `row_bytes` from the start of a row to the next one's.
struct ImageView {
    std::size_t height;
    std::size_t width;
    const std::uint8_t* pixels;
    std::size_t row_bytes;
};

inline ImageView view(const Image& image) { return {image.height, image.width, image.pixels.data(), 3 * image.width}; }

}  // namespace reid
