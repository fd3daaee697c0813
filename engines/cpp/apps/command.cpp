#include "command.h"

#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <regex>
#include <set>

namespace apps {
namespace {

namespace fs = std::filesystem;

const std::set<std::string> kImageSuffixes = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"};
constexpr int kFirstLongOption = 256;
constexpr long long kJunkPid = -1;

/// Why a file in a folder is left out; "" for an image.
std::string left_out_as(const fs::path& path) {
    if (path.filename().string().starts_with('.')) return "hidden";
    std::string suffix = path.extension();
    std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char c) { return std::tolower(c); });
    if (kImageSuffixes.contains(suffix)) return "";
    return suffix.empty() ? "without suffix" : suffix;
}

std::vector<std::string> images_in(const std::string& folder) {
    std::vector<std::string> found;
    std::map<std::string, int> left_out;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (!entry.is_regular_file()) continue;
        const std::string reason = left_out_as(entry.path());
        if (reason.empty()) {
            found.push_back(entry.path());
        } else {
            ++left_out[reason];
        }
    }
    std::string counts;
    for (const auto& [reason, count] : left_out) {
        counts += (counts.empty() ? "left out " : ", ") + std::to_string(count) + " " + reason;
    }
    if (found.empty()) throw UsageError(folder + ": the folder holds no image" + (counts.empty() ? "" : "; ") + counts + ".");
    if (!counts.empty()) std::cerr << folder << ": " << counts << '\n';
    std::sort(found.begin(), found.end());
    return found;
}

/// Where a path leads: a link's file is replaced, not the link.
fs::path target_of(const std::string& path) { return fs::exists(path) ? fs::canonical(path) : fs::path(path); }

/// Removes its file unless that has been renamed.
struct Temporary {
    std::string path;
    ~Temporary() { ::unlink(path.c_str()); }
};

}  // namespace

std::vector<std::string> read_arguments(int argc, char** argv, const std::vector<Option>& options, const char* help) {
    std::string letters;
    std::vector<option> table;
    for (std::size_t i = 0; i < options.size(); ++i) {
        const bool has_value = options[i].has_value;
        if (options[i].letter != 0) letters += std::string(1, options[i].letter) + (has_value ? ":" : "");
        table.push_back({options[i].name.c_str(), has_value ? required_argument : no_argument, nullptr,
                         kFirstLongOption + static_cast<int>(i)});
    }
    const int help_code = kFirstLongOption + static_cast<int>(options.size());
    table.push_back({"help", no_argument, nullptr, help_code});
    table.push_back({});
    int code = 0;
    while ((code = getopt_long(argc, argv, letters.c_str(), table.data(), nullptr)) != -1) {
        if (code == '?') throw UsageError("see --help");
        if (code == help_code) {
            std::cout << help;
            std::exit(0);
        }
        const auto chosen = std::find_if(options.begin(), options.end(), [&](const Option& known) {
            return code == known.letter || code == kFirstLongOption + (&known - options.data());
        });
        chosen->take(chosen->has_value ? optarg : "");
    }
    return {argv + optind, argv + argc};
}

std::size_t positive(const std::string& text, const std::string& option) {
    int value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc() || end != text.data() + text.size() || value < 1) {
        throw UsageError("--" + option + " '" + text + "': expected a whole number from 1 on.");
    }
    return static_cast<std::size_t>(value);
}

std::vector<std::string> find_images(const std::vector<std::string>& sources) {
    std::vector<std::string> found;
    std::set<std::string> seen;
    for (const std::string& source : sources) {
        if (!fs::exists(source)) throw UsageError(source + ": no such file or folder.");
        for (const std::string& path : fs::is_directory(source) ? images_in(source) : std::vector{source}) {
            if (seen.insert(path).second) found.push_back(path);
        }
    }
    return found;
}

std::size_t camera_of(const std::string& path) {
    static const std::regex labels(R"((-?\d{1,18})_c(\d{1,18})(?!\d))");  // numbers that fit 64 bits
    const std::string name = fs::path(path).filename();
    std::smatch found;
    if (!std::regex_search(name, found, labels, std::regex_constants::match_continuous)) return 0;
    return std::stoll(found[1]) < kJunkPid ? 0 : static_cast<std::size_t>(std::stoll(found[2]));
}

void check_writable(const std::string& path) {
    const fs::path target = target_of(path);
    if (fs::exists(target) && !fs::is_regular_file(target)) throw UsageError(path + ": is not a regular file.");
    const fs::path folder = target.has_parent_path() ? target.parent_path() : ".";
    if (::access(folder.c_str(), W_OK | X_OK) != 0 || !fs::is_directory(folder)) {
        throw UsageError(path + ": cannot write there. Make the folder, or choose another path.");
    }
}

void check_replaceable(const std::string& path, bool force) {
    if (!force && fs::is_regular_file(path)) {
        throw UsageError(path + ": exists. Pass --force to replace it, or choose another path.");
    }
}

void write_whole(const std::string& path, const std::string& content) {
    check_writable(path);
    const std::string target = target_of(path);
    Temporary temporary{target + ".XXXXXX"};
    const int file = ::mkstemp(temporary.path.data());
    bool is_whole = file >= 0 && ::fchmod(file, 0644) == 0;
    for (std::size_t done = 0; is_whole && done < content.size();) {
        const ssize_t written = ::write(file, content.data() + done, content.size() - done);
        is_whole = written > 0;
        done += is_whole ? static_cast<std::size_t>(written) : 0;
    }
    is_whole = is_whole && ::fsync(file) == 0 && std::rename(temporary.path.c_str(), target.c_str()) == 0;
    const std::string reason = std::strerror(errno);
    if (file >= 0) ::close(file);
    if (!is_whole) throw UsageError(path + ": cannot be written (" + reason + ").");
}

int exit_status_of(const std::function<void()>& body) {
    try {
        body();
        return 0;
    } catch (const reidruntime::Error& error) {
        std::cerr << "error: " << error.what() << '\n';
        return error.status() == REID_ERROR_NOT_INSTALLED || error.status() == REID_ERROR_RUN ? 3 : 2;
    } catch (const std::bad_alloc&) {
        std::cerr << "error: out of memory\n";
        return 3;
    } catch (const std::exception& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 2;
    }
}

}  // namespace apps
