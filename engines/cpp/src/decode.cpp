#include "decode.h"

#include <turbojpeg.h>

#include <array>
#include <memory>
#include <string_view>

#include "error.h"
#include "file.h"

namespace reid {
namespace {

using Bytes = std::span<const std::uint8_t>;

// Above it Pillow calls a file a decompression bomb.
constexpr std::size_t kMaxPixels = 178'956'970;
// Where Python leaves the decision to Pillow.
constexpr std::size_t kMaxOrdinaryPixels = std::size_t{1} << 25;
constexpr std::array<unsigned char, 3> kJpegMagic = {0xff, 0xd8, 0xff};

using Decoder = std::unique_ptr<void, int (*)(tjhandle)>;

/// Made for every image, in half a microsecond: after a damaged header libjpeg-turbo 2.1 refuses good images too.
Decoder new_decoder() {
    Decoder decoder(tjInitDecompress(), tjDestroy);
    if (!decoder) fail_run("libjpeg-turbo cannot start: out of memory.");
    return decoder;
}

/// Whether the end of the image is missing: no end marker after the last scan has begun.
bool is_cut(Bytes data) {
    const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
    const std::size_t scan = text.rfind("\xff\xda"), end = text.rfind("\xff\xd9");
    return scan == std::string_view::npos || end == std::string_view::npos || end < scan;
}

/// Like Pillow, accept files that libjpeg only warns of, but none that ends too early; where only ordinary ones are wanted,
/// neither.
void check(int result, tjhandle decoder, Bytes data, const std::string& name, Jpegs wanted) {
    if (result == 0) return;
    if (wanted == Jpegs::kOrdinary || tjGetErrorCode(decoder) == TJERR_FATAL || is_cut(data)) {
        fail_image(name + ": the image is damaged (" + tjGetErrorStr2(decoder) + ").");
    }
}

}  // namespace

Image decode_jpeg(Bytes data, const std::string& name, Jpegs wanted) {
    if (data.empty()) fail_image(name + ": the file is empty.");
    if (data.size() < kJpegMagic.size() || !std::equal(kJpegMagic.begin(), kJpegMagic.end(), data.begin())) {
        fail_image(name + ": not a JPEG file. This runtime reads JPEG only: convert it, or pass pixels.");
    }
    const Decoder owned = new_decoder();
    tjhandle decoder = owned.get();
    int width = 0, height = 0, subsampling = 0, colorspace = 0;
    check(tjDecompressHeader3(decoder, data.data(), data.size(), &width, &height, &subsampling, &colorspace), decoder,
          data, name, wanted);
    if (width == 0 || height == 0) fail_image(name + ": the image is damaged (it has no picture in it).");
    if (colorspace == TJCS_CMYK || colorspace == TJCS_YCCK) {
        fail_image(name + ": a CMYK image, expected color or gray. Convert it to RGB.");
    }
    Image image{static_cast<std::size_t>(height), static_cast<std::size_t>(width), {}};
    if (image.height * image.width > (wanted == Jpegs::kOrdinary ? kMaxOrdinaryPixels : kMaxPixels)) {
        fail_image(name + ": " + std::to_string(width) + "x" + std::to_string(height) +
                   " pixels, which may be a decompression bomb.");
    }
    image.pixels.resize(image.height * image.width * 3);
    // The accurate DCT and smooth upsampling, libjpeg's and Pillow's defaults. A progressive file can hold scans without
    // end: turbojpeg stops at 500.
    constexpr int kFlags = TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS;
    check(tjDecompress2(decoder, data.data(), data.size(), image.pixels.data(), width, 0, height, TJPF_RGB, kFlags),
          decoder, data, name, wanted);
    return image;
}

Image decode_jpeg_file(const std::string& path, Jpegs wanted) { return decode_jpeg(read_file(path, fail_image), path, wanted); }

}  // namespace reid
