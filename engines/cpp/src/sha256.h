// SHA-256 (FIPS 180-4): the manifest beside an engine holds the engine's.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace reid {

/// 64 hex digits.
std::string sha256(std::span<const std::uint8_t> data);

}  // namespace reid
