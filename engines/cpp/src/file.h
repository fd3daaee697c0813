// Whole files.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace reid {

/// The bytes of a regular file.
///
/// @param fail is called with what is wrong, and throws: one of error.h's functions.
std::vector<std::uint8_t> read_file(const std::string& path, void (*fail)(const std::string&));

}  // namespace reid
