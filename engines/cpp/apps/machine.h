// What begins the record of a measurement (docs/records.md): the machine and the libraries it was made with.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace apps {

/// A record of that kind, before its measurement: CPU model, cores this process may use, memory, NVIDIA GPUs, operating
/// system and load, and the versions of what a result can depend on; all under the keys of `reidexport bench`.
nlohmann::ordered_json new_record(const std::string& kind);

}  // namespace apps
