// Does a TensorRT engine fit this machine? Checked by its manifest before anything is deserialized.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "manifest.h"

namespace reid {

/// The GPU that would run an engine.
struct Gpu {
    std::string name;
    std::string compute_capability;  ///< "9.0"
    std::string driver_version;      ///< "" where the system does not tell
};

/// Compare version, GPU and driver of an engine with those of this machine.
///
/// @param tensorrt_version of the library that would load it: "10.16.1"; its build number is not looked at.
/// @param allow_host_code whether an engine may bring code of its own.
/// @throws Error (artifact): it does not fit; the message says what was expected and found, and what to rebuild.
void check_engine(const Manifest& manifest, const std::string& path, const std::string& tensorrt_version, const Gpu& gpu,
                  bool allow_host_code);

/// Compare an engine's bytes with the sha256 in its manifest.
///
/// @throws Error (artifact): the manifest describes another engine.
void check_plan_bytes(const Engine& engine, const std::string& path, std::span<const std::uint8_t> plan);

}  // namespace reid
