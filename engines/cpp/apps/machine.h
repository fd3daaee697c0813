// The machine and the libraries that a measurement was made with.
#pragma once

#include <nlohmann/json.hpp>

namespace apps {

/// CPU model, cores this process may use, memory, NVIDIA GPUs, operating system and load, under `reidexport bench`'s keys.
nlohmann::ordered_json machine_info();

/// Versions of what a result can depend on.
nlohmann::ordered_json versions();

}  // namespace apps
