// What both programs share: arguments, images, files that appear whole, and exit statuses.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "reidruntime/reidruntime.hpp"

namespace apps {

/// A mistake of the caller: exit status 2.
class UsageError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// One command-line option: its name without dashes, its one letter or 0, and what is called with its value, "" for an
/// option that has none.
struct Option {
    std::string name;
    char letter;
    std::function<void(const std::string&)> take;
    bool has_value = true;
};

/// Read the command line; --help prints `help` and leaves with status 0.
///
/// @return the arguments that are not options, in order.
/// @throws UsageError: an option is unknown or lacks its value.
std::vector<std::string> read_arguments(int argc, char** argv, const std::vector<Option>& options, const char* help);

/// A whole number from 1 on.
///
/// @throws UsageError naming `option`.
std::size_t positive(const std::string& text, const std::string& option);

/// The images behind files (whatever their suffix) and folders (searched deeply, in order of name), each once. How many
/// files of a folder are left out, and why, goes to stderr.
///
/// @throws UsageError: a source does not exist or holds no image.
std::vector<std::string> find_images(const std::vector<std::string>& sources);

/// The camera that a file's name `<pid>_c<camera>…` tells, from 1; 0 for another name.
std::size_t camera_of(const std::string& path);

/// Whether write_whole() could put a file there, asked before long work.
///
/// @throws UsageError: the folder is missing or cannot be written to, or the path is not a regular file.
void check_writable(const std::string& path);

/// Refuse a file that exists, unless `force`.
///
/// @throws UsageError.
void check_replaceable(const std::string& path, bool force);

/// Write a file that appears whole or not at all; an old one is replaced only by a whole new one.
///
/// @throws UsageError: as check_writable(), or the disk is full.
void write_whole(const std::string& path, const std::string& content);

/// Run a program's body and turn what it throws into messages and exit statuses: 0 done, 2 bad input or usage, 3 something
/// is not installed or the machine failed.
int exit_status_of(const std::function<void()>& body);

}  // namespace apps
