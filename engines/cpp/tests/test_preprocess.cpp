#include "preprocess.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>

#include "reidruntime/reidruntime.hpp"
#include "support.h"

namespace {

using reidruntime::image_from_pixels;

constexpr reid::Preprocess kPreprocess = {
    .height_px = 4, .width_px = 2, .bgr = false, .nchw = false, .bicubic = false, .mean = {}, .std = {1, 1, 1}, .in_graph = true};

std::string complaint_about(const reid_image& image) {
    std::vector<std::uint8_t> out(reid::image_bytes(kPreprocess));
    return complaint([&] { reid::prepare_image(image, 7, kPreprocess, out.data()); });
}

}  // namespace

TEST_CASE("pixels without memory, size or whole rows are refused, however large the numbers") {
    const std::vector<std::uint8_t> pixels(4 * 2 * 3);
    constexpr std::size_t kHuge = std::numeric_limits<std::size_t>::max();
    CHECK(complaint_about(image_from_pixels(pixels.data(), 4, 2)).empty());
    for (const reid_image& wrong :
         {reid_image{}, image_from_pixels(nullptr, 4, 2), image_from_pixels(pixels.data(), 0, 2),
          image_from_pixels(pixels.data(), 4, 0), image_from_pixels(pixels.data(), 4, 2, 5),
          image_from_pixels(pixels.data(), kHuge, 2), image_from_pixels(pixels.data(), 4, kHuge),
          image_from_pixels(pixels.data(), 4, kHuge / 3 + 1)}) {
        CHECK(contains(complaint_about(wrong), "image 7: expected a path, the bytes of a JPEG file, or pixels"));
    }
}

TEST_CASE("channels are swapped for BGR, and laid out in planes for NCHW") {
    reid::Preprocess bgr = kPreprocess;
    bgr.bgr = true;
    std::vector<std::uint8_t> pixels(4 * 2 * 3), out(pixels.size());
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i);
    reid::prepare_image(image_from_pixels(pixels.data(), 4, 2), 0, bgr, out.data());
    CHECK(out[0] == 2);
    CHECK(out[2] == 0);
    CHECK(out[23] == 21);
    bgr.bgr_pixels = true;  // both: nothing to swap
    reid::prepare_image(image_from_pixels(pixels.data(), 4, 2), 0, bgr, out.data());
    CHECK(out == pixels);
    bgr.bgr = false;
    reid::prepare_image(image_from_pixels(pixels.data(), 4, 2), 0, bgr, out.data());
    CHECK(out[0] == 2);
    CHECK(out[2] == 0);
    reid::Preprocess nchw = kPreprocess;
    nchw.nchw = true;
    reid::planes(pixels, nchw, out.data());
    CHECK(out[1] == 3);
    CHECK(out[8] == 1);
    CHECK(out[23] == 23);
}
