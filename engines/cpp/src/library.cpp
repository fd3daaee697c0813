#include "library.h"

#include <dlfcn.h>

#include <cstdlib>

#include "error.h"

namespace reid {

Library::Library(const std::string& what, const std::vector<std::string>& names, const std::string& install)
    : what_(what) {
    std::string reason;
    for (const std::string& name : names) {
        handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (handle_ != nullptr) return;
        reason += (reason.empty() ? "" : "; ") + std::string(dlerror());
    }
    fail_not_installed(what + " cannot be loaded (" + reason + "). " + install);
}

void* Library::address(const char* name) const {
    void* found = dlsym(handle_, name);
    if (found == nullptr) fail_not_installed(what_ + " has no function " + name + ". Install another version.");
    return found;
}

std::vector<std::string> library_names(const char* option, const char* variable,
                                       const std::vector<std::string>& defaults) {
    if (option != nullptr) return {option};
    const char* set = std::getenv(variable);
    if (set != nullptr && *set != '\0') return {set};
    return defaults;
}

}  // namespace reid
