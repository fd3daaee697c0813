#include "json_format.h"

#include <utility>

#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "error.h"

namespace reid {
namespace {

using nlohmann::json;
using Adapter = valijson::adapters::NlohmannJsonAdapter;

constexpr int kFormatVersion = 1;
// A manifest has five levels; copying and printing JSON needs stack for every one.
constexpr int kMaxDepth = 16;
// Of a file that is something else altogether every number may be wrong.
constexpr std::size_t kMaxProblems = 5;

}  // namespace

JsonFormat::JsonFormat(std::string name, const char* schema, std::string what_to_do)
    : name_(std::move(name)), what_to_do_(std::move(what_to_do)) {
    auto parsed = std::make_shared<valijson::Schema>();
    const json text = json::parse(schema);
    valijson::SchemaParser().populateSchema(Adapter(text), *parsed);
    schema_ = std::move(parsed);
}

json JsonFormat::parse(const std::string& text, const std::string& origin) const {
    const auto keep = [&](int depth, json::parse_event_t, const json&) {
        if (depth > kMaxDepth) fail(origin + ": " + name_ + " is nested too deeply.");
        return true;
    };
    try {
        return json::parse(text, keep);
    } catch (const json::exception& error) {
        fail(origin + ": " + name_ + " is not JSON (" + error.what() + ").");
    }
}

void JsonFormat::validate(const json& data, const std::string& origin) const {
    const json version = data.is_object() ? data.value("format_version", json()) : json();
    if (version != kFormatVersion) {
        fail_artifact(origin + ": " + name_ + " has format version " + version.dump() + ", this reidruntime reads " +
                      std::to_string(kFormatVersion) + ". " + what_to_do_ +
                      " Or install the reidruntime that fits it.");
    }
    valijson::ValidationResults problems;
    valijson::Validator validator;
    if (validator.validate(*schema_, Adapter(data), &problems)) return;
    std::string text;
    valijson::ValidationResults::Error problem;
    for (std::size_t i = 0; i < kMaxProblems && problems.popError(problem); ++i) {
        std::string place;
        for (const std::string& part : problem.context) place += part;
        text += (text.empty() ? "" : "; ") + place + ": " + problem.description;
    }
    fail(origin + ": " + name_ + " is not valid: " + text);
}

void JsonFormat::fail(const std::string& problem) const { fail_artifact(problem + " " + what_to_do_); }

}  // namespace reid
