#include "resize.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace {

reid::Image ramp(std::size_t height, std::size_t width) {
    reid::Image image{height, width, std::vector<std::uint8_t>(height * width * 3)};
    std::iota(image.pixels.begin(), image.pixels.end(), std::uint8_t{0});
    return image;
}

}  // namespace

TEST_CASE("a constant image stays constant at every size, for both kernels") {
    const reid::Image image{5, 7, std::vector<std::uint8_t>(5 * 7 * 3, 201)};
    for (const bool bicubic : {false, true}) {
        for (const std::size_t size : {1, 2, 5, 7, 11, 64}) {
            std::vector<std::uint8_t> out(size * size * 3);
            reid::resize(reid::view(image), size, size, bicubic, out.data());
            CHECK(out == std::vector<std::uint8_t>(out.size(), 201));
        }
    }
}

TEST_CASE("an image of the wanted size is copied, rows with gaps too") {
    const reid::Image image = ramp(4, 6);
    std::vector<std::uint8_t> out(4 * 6 * 3);
    reid::resize(reid::view(image), 4, 6, false, out.data());
    CHECK(out == image.pixels);
    std::vector<std::uint8_t> left(4 * 2 * 3), expected;
    reid::resize({4, 2, image.pixels.data(), 18}, 4, 2, false, left.data());
    for (std::size_t y = 0; y < 4; ++y) {
        expected.insert(expected.end(), image.pixels.begin() + static_cast<std::ptrdiff_t>(18 * y),
                        image.pixels.begin() + static_cast<std::ptrdiff_t>(18 * y + 6));
    }
    CHECK(left == expected);
}

TEST_CASE("doubling both sides at once equals one after the other") {
    for (const auto& [height, width] : {std::pair<std::size_t, std::size_t>{1, 1}, {1, 5}, {6, 1}, {2, 2}, {33, 17}}) {
        CAPTURE(height);
        reid::Image image = ramp(height, width);
        for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * i * 37 >> 3);
        std::vector<std::uint8_t> wide(height * width * 6), expected(2 * wide.size()), out(2 * wide.size());
        reid::resize(reid::view(image), height, 2 * width, false, wide.data());
        reid::resize({height, 2 * width, wide.data(), 6 * width}, 2 * height, 2 * width, false, expected.data());
        reid::resize(reid::view(image), 2 * height, 2 * width, false, out.data());
        CHECK(out == expected);
        std::vector<std::uint8_t> padded(height * (3 * width + 5));
        for (std::size_t y = 0; y < height; ++y) {
            std::copy_n(image.pixels.data() + y * 3 * width, 3 * width, padded.data() + y * (3 * width + 5));
        }
        reid::resize({height, width, padded.data(), 3 * width + 5}, 2 * height, 2 * width, false, out.data());
        CHECK(out == expected);
    }
}

TEST_CASE("doubling takes a quarter of the neighbor, rounded half up, in each pass") {
    const reid::Image image{1, 2, {0, 10, 100, 4, 20, 201}};
    std::vector<std::uint8_t> out(4 * 3);
    reid::resize(reid::view(image), 1, 4, false, out.data());
    CHECK(out == std::vector<std::uint8_t>{0, 10, 100, 1, 13, 125, 3, 18, 176, 4, 20, 201});
}
