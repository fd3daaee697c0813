#include "machine.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "reidruntime/reidruntime.h"

namespace apps {
namespace {

/// What stands after the colon in the first line that names `key`, or "".
std::string value_in(const std::filesystem::path& path, const std::string& key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        if (line.find_last_not_of(" \t", colon - 1) + 1 == key.size() && line.starts_with(key)) {
            const std::size_t start = line.find_first_not_of(" \t", colon + 1);
            return start == std::string::npos ? "" : line.substr(start);
        }
    }
    return "";
}

/// The CPU's name, with the numbers that tell generations of one name apart.
std::string cpu_model() {
    const std::string name = value_in("/proc/cpuinfo", "model name");
    const std::string family = value_in("/proc/cpuinfo", "cpu family");
    const std::string model = value_in("/proc/cpuinfo", "model");
    return family.empty() || model.empty() ? name : name + " (family " + family + ", model " + model + ")";
}

/// The highest clock of any core in MHz, or null where the system does not tell.
nlohmann::ordered_json cpu_mhz() {
    double highest = 0;
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(':');
        if (line.starts_with("cpu MHz") && colon != std::string::npos) {
            highest = std::max(highest, std::strtod(line.c_str() + colon + 1, nullptr));
        }
    }
    return highest > 0 ? nlohmann::ordered_json(std::lround(highest)) : nlohmann::ordered_json();
}

/// What sets the clocks, or null where the system does not tell.
nlohmann::ordered_json governor() {
    std::string name;
    std::ifstream("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") >> name;
    return name.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(name);
}

std::vector<std::string> gpus() {
    const std::filesystem::path root = "/proc/driver/nvidia/gpus";
    std::vector<std::string> folders, models;
    std::error_code none;
    for (const auto& folder : std::filesystem::directory_iterator(root, none)) folders.push_back(folder.path());
    std::sort(folders.begin(), folders.end());
    for (const std::string& folder : folders) {
        models.push_back(value_in(std::filesystem::path(folder) / "information", "Model"));
    }
    return models;
}

nlohmann::ordered_json machine_info() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    sched_getaffinity(0, sizeof allowed, &allowed);
    utsname system{};
    uname(&system);
    double load = 0;
    getloadavg(&load, 1);
    const long mebibyte = 1 << 20;
    return {
        {"cpu", cpu_model()},
        {"cpu_mhz", cpu_mhz()},
        {"governor", governor()},
        {"cores", CPU_COUNT(&allowed)},
        {"memory_mib", sysconf(_SC_PAGE_SIZE) / 1024 * sysconf(_SC_PHYS_PAGES) / (mebibyte / 1024)},
        {"gpus", gpus()},
        {"system", std::string(system.sysname) + " " + system.release + " " + system.machine},
        {"load_average", std::round(load * 100) / 100},
    };
}

}  // namespace

nlohmann::ordered_json new_record(const std::string& kind) {
    return {
        {"kind", kind},
        {"version", 1},
        {"machine", machine_info()},
        {"versions", {{"reidruntime", reid_version()}, {"compiler", __VERSION__}}},
    };
}

}  // namespace apps
