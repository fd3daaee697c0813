#include "decode.h"

#include <doctest/doctest.h>
#include <turbojpeg.h>

#include <random>

#include "jpeg.h"
#include "support.h"

namespace {

std::string complaint_about(const std::string& path) {
    return complaint([&] { (void)reid::decode_jpeg_file(path); });
}

}  // namespace

TEST_CASE("color and gray files decode to RGB of their size") {
    const TemporaryFolder folder;
    for (const int subsampling : {TJSAMP_444, TJSAMP_422, TJSAMP_420, TJSAMP_GRAY}) {
        const reid::Image image = reid::decode_jpeg_file(folder.write("a.jpg", jpeg(33, 17, subsampling)));
        CHECK(image.width == 33);
        CHECK(image.height == 17);
        CHECK(image.pixels.size() == 33 * 17 * 3);
        if (subsampling == TJSAMP_GRAY) CHECK(image.pixels[0] == image.pixels[2]);
    }
}

TEST_CASE("what is not a whole JPEG file is refused by name") {
    const TemporaryFolder folder;
    const std::string whole = jpeg(64, 64, TJSAMP_420);
    CHECK(contains(complaint_about("/nowhere/a.jpg"), "/nowhere/a.jpg: cannot be read (No such file or directory)"));
    CHECK(contains(complaint_about("/dev/null"), "not a regular file"));
    CHECK(contains(complaint_about(folder.write("a.jpg", "")), "a.jpg: the file is empty"));
    CHECK(contains(complaint_about(folder.write("a.jpg", "\x89PNG\r\n")), "This runtime reads JPEG only"));
    CHECK(contains(complaint_about(folder.write("a.tif", std::string("II*\0", 4))), "This runtime reads JPEG only"));
    CHECK(contains(complaint_about(folder.write("a.jpg", "\xff\xd8\xff")), "damaged"));
    std::string deep = whole;
    deep[deep.find("\xff\xc0") + 4] = 12;  // bits a channel
    CHECK(contains(complaint_about(folder.write("a.jpg", deep)), "a.jpg: the image is damaged (Unsupported JPEG data precision 12"));
}

TEST_CASE("a file cut anywhere is refused, whatever libjpeg makes of the rest") {
    const TemporaryFolder folder;
    const std::string whole = jpeg(64, 64, TJSAMP_420);
    for (std::size_t size = 1; size + 2 < whole.size(); size += 7) {
        CAPTURE(size);
        CHECK_FALSE(complaint_about(folder.write("a.jpg", whole.substr(0, size))).empty());
    }
}

TEST_CASE("of an odd file it depends on what is wanted, and an ordinary one is whatever is wanted") {
    const TemporaryFolder folder;
    const std::string whole = jpeg(64, 64, TJSAMP_420);
    const std::string good = folder.write("good.jpg", whole);
    const std::string odd = folder.write("odd.jpg", made_odd(whole));
    const auto strict = [](const std::string& path) {
        return complaint([&] { (void)reid::decode_jpeg_file(path, reid::Jpegs::kOrdinary); });
    };
    CHECK(complaint_about(odd).empty());
    CHECK(contains(strict(odd), "odd.jpg: the image is damaged"));
    CHECK(strict(good).empty());
    std::string large = whole;
    large.replace(large.find("\xff\xc0") + 5, 4, "\x17\x70\x17\x70");
    CHECK(contains(strict(folder.write("large.jpg", large)), "6000x6000 pixels"));
}

TEST_CASE("bytes in memory decode as their file does, and are named as the caller says") {
    const TemporaryFolder folder;
    const std::string whole = jpeg(33, 17, TJSAMP_420);
    CHECK(reid::decode_jpeg(bytes(whole), "x").pixels == reid::decode_jpeg_file(folder.write("a.jpg", whole)).pixels);
    CHECK(complaint([] { (void)reid::decode_jpeg({}, "image 3"); }) == "image 3: the file is empty.");
}

TEST_CASE("a good file is read after every bad one") {
    const TemporaryFolder folder;
    const std::string whole = jpeg(64, 64, TJSAMP_420);
    const std::string good = folder.write("good.jpg", whole);
    for (std::size_t size = 2; size < whole.find("\xff\xda"); ++size) {
        CAPTURE(size);
        CHECK_FALSE(complaint_about(folder.write("bad.jpg", whole.substr(0, size) + "\xff\xd9")).empty());
        CHECK(complaint_about(good).empty());
    }
}

TEST_CASE("a header that promises more pixels than any image has is refused before memory is taken") {
    const TemporaryFolder folder;
    std::string bomb = jpeg(64, 64, TJSAMP_420);
    const std::size_t frame = bomb.find("\xff\xc0");
    bomb.replace(frame + 5, 4, "\xff\xdc\xff\xdc");
    CHECK(contains(complaint_about(folder.write("a.jpg", bomb)), "decompression bomb"));
}

TEST_CASE("changed bytes never do more than spoil the picture") {
    const TemporaryFolder folder;
    const std::string whole = jpeg(48, 48, TJSAMP_420);
    std::mt19937 chance(1);
    for (int i = 0; i < 300; ++i) {
        std::string changed = whole;
        for (int k = 0; k < 4; ++k) changed[2 + chance() % (changed.size() - 2)] = static_cast<char>(chance());
        (void)complaint_about(folder.write("a.jpg", changed));
    }
}
