#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace reid {
namespace {

constexpr int kPrecisionBits = 22;  // Pillow's: 32 - 8 bits of pixel - 2 bits of head room
constexpr std::int32_t kHalf = 1 << (kPrecisionBits - 1);

double triangle(double x) { return x < 1.0 ? 1.0 - x : 0.0; }

double cubic(double x) {
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
}

/// Which inputs make an output, and how much of each.
struct Tap {
    std::size_t start;
    std::size_t count;
    const std::int32_t* weights;
};

class Taps {
public:
    Taps(std::size_t in_size, std::size_t out_size, bool bicubic)
        : scale_(static_cast<double>(in_size) / static_cast<double>(out_size)) {
        const double stretch = std::max(scale_, 1.0);
        const double support = (bicubic ? 2.0 : 1.0) * stretch;
        stride_ = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
        spans_.reserve(out_size);
        weights_.resize(out_size * stride_);
        std::vector<double> exact(stride_);
        for (std::size_t i = 0; i < out_size; ++i) {
            const double center = (static_cast<double>(i) + 0.5) * scale_;
            const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
            const auto last = std::min(static_cast<std::int64_t>(center + support + 0.5),
                                       static_cast<std::int64_t>(in_size));
            const auto count = static_cast<std::size_t>(last - first);
            double total = 0.0;
            for (std::size_t k = 0; k < count; ++k) {
                const double offset = static_cast<double>(k) + static_cast<double>(first) - center + 0.5;
                const double distance = std::abs(offset * (1.0 / stretch));
                exact[k] = bicubic ? cubic(distance) : triangle(distance);
                total += exact[k];
            }
            std::int32_t* fixed = weights_.data() + i * stride_;
            for (std::size_t k = 0; k < count; ++k) {
                const double weight = exact[k] / total;
                fixed[k] = static_cast<std::int32_t>(weight * (1 << kPrecisionBits) + (weight < 0 ? -0.5 : 0.5));
            }
            spans_.push_back({static_cast<std::size_t>(first), count});
        }
    }

    Tap operator[](std::size_t i) const { return {spans_[i].start, spans_[i].count, weights_.data() + i * stride_}; }

private:
    struct Span {
        std::size_t start;
        std::size_t count;
    };

    double scale_;
    std::size_t stride_ = 0;
    std::vector<Span> spans_;
    std::vector<std::int32_t> weights_;
};

std::uint8_t pixel(std::int32_t total) { return static_cast<std::uint8_t>(std::clamp(total >> kPrecisionBits, 0, 255)); }

/// Horizontal pass: height x in -> height x width.
void resample_rows(const ImageView& image, std::size_t width, bool bicubic, std::uint8_t* out) {
    const Taps taps(image.width, width, bicubic);
    for (std::size_t y = 0; y < image.height; ++y) {
        const std::uint8_t* row = image.pixels + y * image.row_bytes;
        for (std::size_t x = 0; x < width; ++x, out += 3) {
            const Tap tap = taps[x];
            const std::uint8_t* source = row + 3 * tap.start;
            std::int32_t red = kHalf, green = kHalf, blue = kHalf;
            for (std::size_t k = 0; k < tap.count; ++k, source += 3) {
                red += source[0] * tap.weights[k];
                green += source[1] * tap.weights[k];
                blue += source[2] * tap.weights[k];
            }
            out[0] = pixel(red);
            out[1] = pixel(green);
            out[2] = pixel(blue);
        }
    }
}

/// Vertical pass: in x width -> height x width.
void resample_columns(const ImageView& image, std::size_t height, bool bicubic, std::uint8_t* out) {
    const Taps taps(image.height, height, bicubic);
    const std::size_t row_size = 3 * image.width;
    std::vector<std::int32_t> total(row_size);
    for (std::size_t y = 0; y < height; ++y, out += row_size) {
        const Tap tap = taps[y];
        std::fill(total.begin(), total.end(), kHalf);
        for (std::size_t k = 0; k < tap.count; ++k) {
            const std::uint8_t* source = image.pixels + (tap.start + k) * image.row_bytes;
            for (std::size_t i = 0; i < row_size; ++i) total[i] += source[i] * tap.weights[k];
        }
        std::transform(total.begin(), total.end(), out, pixel);
    }
}

/// (3 near + far + 2) >> 2, as the rounded mean of near and the truncated mean of both, which compilers turn into byte-wide
/// instructions.
std::uint8_t three_to_one(std::uint8_t near, std::uint8_t far) {
    const auto mean = static_cast<std::uint8_t>((near & far) + ((near ^ far) >> 1));
    return static_cast<std::uint8_t>((near + mean + 1) >> 1);
}

/// Twice the width of one row: two outputs between each pixel and the next, and the outer ones as they are.
void double_row(const std::uint8_t* row, std::size_t width, std::uint8_t* left, std::uint8_t* right, std::uint8_t* out) {
    const std::size_t length = 3 * width;
    for (std::size_t i = 0; i + 3 < length; ++i) {
        left[i] = three_to_one(row[i], row[i + 3]);
        right[i] = three_to_one(row[i + 3], row[i]);
    }
    std::memcpy(out, row, 3);
    for (std::size_t i = 0; i + 3 < length; i += 3) {  // four bytes at once: the next pixel overwrites the fourth
        std::memcpy(out + 2 * i + 3, left + i, 4);
        std::memcpy(out + 2 * i + 6, right + i, 4);
    }
    std::memcpy(out + 2 * length - 3, row + length - 3, 3);
}

/// Both passes of the bilinear upscale to twice the size, where every weight is 1/4 or 3/4: a 128x64 crop of Market-1501
/// to a 256x128 input.
void double_bilinear(const ImageView& image, std::uint8_t* out) {
    const std::size_t length = 3 * image.width, out_length = 2 * length;
    std::vector<std::uint8_t> left(length), right(length), upper(out_length), lower(out_length);
    double_row(image.pixels, image.width, left.data(), right.data(), upper.data());
    std::memcpy(out, upper.data(), out_length);
    out += out_length;
    for (std::size_t y = 1; y < image.height; ++y, out += 2 * out_length) {
        double_row(image.pixels + y * image.row_bytes, image.width, left.data(), right.data(), lower.data());
        for (std::size_t i = 0; i < out_length; ++i) {
            out[i] = three_to_one(upper[i], lower[i]);
            out[out_length + i] = three_to_one(lower[i], upper[i]);
        }
        upper.swap(lower);
    }
    std::memcpy(out, upper.data(), out_length);
}

}  // namespace

void resize(const ImageView& image, std::size_t height, std::size_t width, bool bicubic, std::uint8_t* out) {
    if (image.height == height && image.width == width) {
        for (std::size_t y = 0; y < height; ++y) {
            std::memcpy(out + y * 3 * width, image.pixels + y * image.row_bytes, 3 * width);
        }
    } else if (!bicubic && height == 2 * image.height && width == 2 * image.width) {
        double_bilinear(image, out);
    } else if (image.height == height) {
        resample_rows(image, width, bicubic, out);
    } else if (image.width == width) {
        resample_columns(image, height, bicubic, out);
    } else {
        Image rows{image.height, width, std::vector<std::uint8_t>(image.height * width * 3)};
        resample_rows(image, width, bicubic, rows.pixels.data());
        resample_columns(view(rows), height, bicubic, out);
    }
}

}  // namespace reid
