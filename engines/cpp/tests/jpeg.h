// JPEG files for tests.
#pragma once

#include <doctest/doctest.h>
#include <turbojpeg.h>

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

/// The bytes of a file of noise.
inline std::string jpeg(int width, int height, int subsampling) {
    std::vector<unsigned char> pixels(static_cast<std::size_t>(width * height * 3));
    std::mt19937 chance(0);
    for (unsigned char& value : pixels) value = static_cast<unsigned char>(chance());
    unsigned char* data = nullptr;
    unsigned long size = 0;
    tjhandle handle = tjInitCompress();
    const auto* source = pixels.data();
    REQUIRE(tjCompress2(handle, source, width, 0, height, TJPF_RGB, &data, &size, subsampling, 90, 0) == 0);
    const std::string bytes(reinterpret_cast<char*>(data), size);
    tjFree(data);
    tjDestroy(handle);
    return bytes;
}

/// The same file with two bytes that belong to nothing, behind the first segment: libjpeg warns of them.
inline std::string made_odd(const std::string& whole) { return whole.substr(0, 20) + std::string(2, '\0') + whole.substr(20); }

inline std::span<const std::uint8_t> bytes(const std::string& content) {
    return {reinterpret_cast<const std::uint8_t*>(content.data()), content.size()};
}
