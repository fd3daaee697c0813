// The reader of batches, through the C API and its wrapper.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "jpeg.h"
#include "preprocess.h"
#include "reidruntime/reidruntime.hpp"
#include "support.h"

namespace {

constexpr std::size_t kHeight = 32, kWidth = 16, kRow = kHeight * kWidth * 3;

reid_reader_options options_for(int threads) {
    reid_reader_options options{};
    options.size = sizeof options;
    options.height_px = kHeight;
    options.width_px = kWidth;
    options.threads = threads;
    return options;
}

/// Files, bytes and pixels in turn, of every size, and each one's pixels as sessions see them.
struct Images {
    explicit Images(std::size_t count) : expected(count * kRow) {
        files.reserve(count);  // what points into them must not move
        contents.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            const int width = 8 + static_cast<int>(i * 7 % 40), height = 16 + static_cast<int>(i * 5 % 40);
            contents.push_back(jpeg(width, height, i % 2 == 0 ? TJSAMP_420 : TJSAMP_GRAY));
            files.push_back(folder.write(std::to_string(i) + ".jpg", contents.back()));
            switch (i % 3) {
                case 0: images.push_back(reidruntime::image_from_file(files.back().c_str())); break;
                case 1: images.push_back(reidruntime::image_from_jpeg(bytes(contents.back()))); break;
                default:
                    images.push_back(reidruntime::image_from_pixels(bytes(contents.back()).data(), 8, 4, 20));
            }
            reid::Preprocess preprocess{};
            preprocess.height_px = kHeight;
            preprocess.width_px = kWidth;
            reid::prepare_image(images.back(), i, preprocess, expected.data() + i * kRow);
        }
    }

    TemporaryFolder folder;
    std::vector<std::string> files, contents;
    std::vector<reid_image> images;
    std::vector<std::uint8_t> expected;
};

bool all_read(const std::vector<reid_status>& statuses) {
    return std::all_of(statuses.begin(), statuses.end(), [](reid_status status) { return status == REID_OK; });
}

}  // namespace

TEST_CASE("every image fills its row and nothing behind it, whatever the number of threads") {
    const Images given(23);
    for (const int threads : {0, 1, 2, 7, 40}) {
        CAPTURE(threads);
        const reidruntime::Reader reader(options_for(threads));
        for (const std::size_t count : {23, 1, 2, 0}) {
            std::vector<std::uint8_t> pixels(count * kRow + 1, 99);
            CHECK(all_read(reader.read(std::span(given.images).first(count), pixels)));
            CHECK(std::equal(pixels.begin(), pixels.end() - 1, given.expected.begin()));
            CHECK(pixels.back() == 99);
        }
    }
}

TEST_CASE("the kernel and the channel order are those that the options say") {
    const Images given(6);
    reid_reader_options options = options_for(2);
    options.bicubic = options.bgr = 1;
    std::vector<std::uint8_t> pixels(6 * kRow), expected(6 * kRow);
    reid::Preprocess preprocess{};
    preprocess.height_px = kHeight;
    preprocess.width_px = kWidth;
    preprocess.bicubic = preprocess.bgr = true;
    for (std::size_t i = 0; i < 6; ++i) reid::prepare_image(given.images[i], i, preprocess, expected.data() + i * kRow);
    CHECK(all_read(reidruntime::Reader(options).read(given.images, pixels)));
    CHECK(pixels == expected);
    CHECK(pixels != given.expected);
}

TEST_CASE("pixels that the options call BGR are read as their RGB, and files as ever") {
    const std::string file = jpeg(kWidth, kHeight, TJSAMP_444);
    std::vector<std::uint8_t> rgb(kRow), bgr;
    for (std::size_t i = 0; i < kRow; ++i) rgb[i] = static_cast<std::uint8_t>(i);
    bgr = rgb;
    for (std::size_t i = 0; i < kRow; i += 3) std::swap(bgr[i], bgr[i + 2]);
    const auto read = [&](const std::vector<std::uint8_t>& given, int bgr_pixels) {
        reid_reader_options options = options_for(1);
        options.bgr_pixels = bgr_pixels;
        const std::vector<reid_image> images = {reidruntime::image_from_pixels(given.data(), kHeight, kWidth),
                                                reidruntime::image_from_jpeg(bytes(file))};
        std::vector<std::uint8_t> pixels(2 * kRow);
        CHECK(all_read(reidruntime::Reader(options).read(images, pixels)));
        return pixels;
    };
    CHECK(read(bgr, 1) == read(rgb, 0));
    CHECK(read(bgr, 0) != read(rgb, 0));
}

TEST_CASE("images that the reader does not take have a status each, and the others are read") {
    const Images given(12);
    std::vector<reid_image> images = given.images;
    const std::string whole = jpeg(64, 64, TJSAMP_420);
    const std::string png = "\x89PNG\r\n";
    const std::string cut = whole.substr(0, whole.size() / 2);
    const std::string odd = made_odd(whole);
    images[3] = reidruntime::image_from_file("/nowhere/a.jpg");
    images[4] = reidruntime::image_from_jpeg(bytes(png));
    images[6] = reidruntime::image_from_jpeg(bytes(cut));
    images[9] = reidruntime::image_from_jpeg(bytes(odd));
    images[11] = {};
    const auto is_bad = [](std::size_t i) { return i == 3 || i == 4 || i == 6 || i == 9 || i == 11; };
    for (const int threads : {1, 4}) {
        const reidruntime::Reader reader(options_for(threads));
        std::vector<std::uint8_t> pixels(12 * kRow);
        const std::vector<reid_status> statuses = reader.read(images, pixels);
        CHECK(contains(reid_last_error(), "/nowhere/a.jpg: cannot be read (No such file or directory)"));
        for (std::size_t i = 0; i < 12; ++i) {
            CAPTURE(i);
            CHECK(statuses[i] == (is_bad(i) ? REID_ERROR_IMAGE : REID_OK));
            const auto* row = pixels.data() + i * kRow;
            if (!is_bad(i)) CHECK(std::equal(row, row + kRow, given.expected.data() + i * kRow));
        }
        CHECK(all_read(reader.read(given.images, pixels)));
        CHECK(pixels == given.expected);
    }
}

TEST_CASE("many callers read at once through one reader") {
    const Images given(9);
    const reidruntime::Reader reader(options_for(3));
    std::atomic<int> wrong = 0;
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                for (int k = 0; k < 50; ++k) {
                    std::vector<std::uint8_t> pixels(9 * kRow);
                    if (!all_read(reader.read(given.images, pixels)) || pixels != given.expected) ++wrong;
                }
            });
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("wrong calls of a reader are answered, not followed") {
    const auto opening = [](const reid_reader_options* options) {
        auto* reader = reinterpret_cast<reid_reader*>(1);
        CHECK(reid_open_reader(options, &reader) == REID_ERROR_INPUT);
        CHECK(reader == nullptr);
        return std::string(reid_last_error());
    };
    CHECK(opening(nullptr) == "options must not be NULL.");
    reid_reader_options options = options_for(-1);
    CHECK(contains(opening(&options), "threads must be at least 1"));
    options = options_for(1);
    options.width_px = 0;
    CHECK(contains(opening(&options), "expected height_px and width_px of 1 to 16777216, got 32 and 0"));
    options.size = 4;
    CHECK(contains(opening(&options), "reid_reader_options.size is 4"));
    CHECK(reid_open_reader(&options, nullptr) == REID_ERROR_INPUT);
    reid_status status = REID_OK;
    const reid_image image{};
    std::uint8_t pixel = 0;
    CHECK(reid_read(nullptr, &image, 1, &pixel, &status) == REID_ERROR_INPUT);
    reid_close_reader(nullptr);
    const reidruntime::Reader reader(options_for(1));
    CHECK_THROWS_WITH_AS((void)reader.read(std::span(&image, 1), {}), "expected room for 1536 bytes, got 0",
                         reidruntime::Error);
}
