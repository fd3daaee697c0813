// The library's one exception; c_api.cpp turns it into a status and a message.
#pragma once

#include <stdexcept>
#include <string>

#include "reidruntime/reidruntime.h"

namespace reid {

class Error : public std::runtime_error {
public:
    Error(reid_status kind, const std::string& message) : std::runtime_error(message), status(kind) {}

    reid_status status;
};

[[noreturn]] inline void fail_input(const std::string& message) { throw Error(REID_ERROR_INPUT, message); }
[[noreturn]] inline void fail_artifact(const std::string& message) { throw Error(REID_ERROR_ARTIFACT, message); }
[[noreturn]] inline void fail_image(const std::string& message) { throw Error(REID_ERROR_IMAGE, message); }
[[noreturn]] inline void fail_run(const std::string& message) { throw Error(REID_ERROR_RUN, message); }
[[noreturn]] inline void fail_not_installed(const std::string& message) {
    throw Error(REID_ERROR_NOT_INSTALLED, message);
}

}  // namespace reid
