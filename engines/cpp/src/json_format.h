// JSON that reidexport writes: manifests and camera profiles, each valid against the schema that Python exports.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace valijson {
class Schema;
}

namespace reid {

class JsonFormat {
public:
    /// @param name in error messages: "the manifest".
    /// @param schema JSON, whose format_version is 1.
    /// @param what_to_do the last sentence of every error message.
    JsonFormat(std::string name, const char* schema, std::string what_to_do);

    /// Parse and validate a text; returns what `make` makes of it.
    ///
    /// @param origin what to call the source in an error message.
    /// @throws Error (artifact): not JSON, another format version, or not valid.
    template <typename Make>
    auto read(const std::string& text, const std::string& origin, Make make) const {
        const nlohmann::json data = parse(text, origin);
        validate(data, origin);
        try {
            return make(data);
        } catch (const nlohmann::json::exception& error) {
            fail(origin + ": " + name_ + " is not valid: " + error.what() + ".");
        }
    }

private:
    nlohmann::json parse(const std::string& text, const std::string& origin) const;
    void validate(const nlohmann::json& data, const std::string& origin) const;
    [[noreturn]] void fail(const std::string& problem) const;

    std::string name_;
    std::string what_to_do_;
    std::shared_ptr<const valijson::Schema> schema_;
};

}  // namespace reid
