// A shared library that is opened at run time, never linked.
#pragma once

#include <string>
#include <vector>

namespace reid {

/// It stays loaded to the end of the process: its threads and thread-local data may outlive what used it.
class Library {
public:
    /// Open the first of `names` that the loader takes.
    ///
    /// @param what what it is, for an error message.
    /// @param install what to do when it is missing.
    /// @throws Error (not installed): none can be loaded; the message has the loader's reasons.
    Library(const std::string& what, const std::vector<std::string>& names, const std::string& install);

    /// The function `name`, of type F.
    ///
    /// @throws Error (not installed): the library has no such function.
    template <typename F>
    F* function(const char* name) const {
        return reinterpret_cast<F*>(address(name));
    }

private:
    void* address(const char* name) const;

    std::string what_;
    void* handle_ = nullptr;
};

/// Where to look: `option` alone if it is set, else the environment's `variable` alone, else `defaults`.
std::vector<std::string> library_names(const char* option, const char* variable,
                                       const std::vector<std::string>& defaults);

}  // namespace reid
