#include "file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace reid {

std::vector<std::uint8_t> read_file(const std::string& path, void (*fail)(const std::string&)) {
    std::error_code problem;
    const std::filesystem::file_status status = std::filesystem::status(path, problem);
    if (problem) fail(path + ": cannot be read (" + problem.message() + ").");
    if (!std::filesystem::is_regular_file(status)) fail(path + ": not a regular file.");
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) fail(path + ": cannot be read (" + std::strerror(errno) + ").");
    std::vector<std::uint8_t> data(static_cast<std::size_t>(file.tellg()));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(data.data()), static_cast<std::streamsize>(data.size()));
    if (!file) fail(path + ": cannot be read to its end.");
    return data;
}

}  // namespace reid
