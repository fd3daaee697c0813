// Does a manifest tell the truth about its file?
#include <algorithm>

#include "error.h"
#include "manifest.h"

namespace reid {
namespace {

const std::string kWhatToDo = ". Export the artifact again.";

std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string text;
    for (const std::int64_t size : shape) {
        text += (text.empty() ? "" : ", ") + (size == kDynamic ? std::string("batch") : std::to_string(size));
    }
    return "[" + text + "]";
}

std::string names_of(const std::vector<TensorSpec>& tensors) {
    std::string text;
    for (const TensorSpec& tensor : tensors) text += (text.empty() ? "'" : ", '") + tensor.name + "'";
    return text;
}

/// Equal where the file states a size; a batch that is dynamic in the manifest must be so in the file.
bool fits(const std::vector<std::int64_t>& expected, const std::vector<std::int64_t>& found) {
    return std::equal(expected.begin(), expected.end(), found.begin(), found.end(),
                      [](std::int64_t wanted, std::int64_t size) { return size == kDynamic || size == wanted; });
}

void check_tensor(const char* role, const TensorSpec& spec, const std::vector<TensorSpec>& tensors,
                  const std::string& path) {
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const TensorSpec& tensor) { return tensor.name == spec.name; });
    if (found == tensors.end()) {
        fail_artifact(path + ": the manifest's " + role + " '" + spec.name +
                      "' is not in the file, which has " + names_of(tensors) + kWhatToDo);
    }
    if (found->dtype != spec.dtype || !fits(spec.shape, found->shape)) {
        fail_artifact(path + ": " + role + " '" + spec.name + "': the manifest expects " + spec.dtype + " " +
                      shape_text(spec.shape) + ", the file has " + found->dtype + " " +
                      shape_text(found->shape) + kWhatToDo);
    }
}

void check_input(const Manifest& manifest, const std::string& path) {
    const Preprocess& wanted = manifest.preprocess;
    const auto height = static_cast<std::int64_t>(wanted.height_px);
    const auto width = static_cast<std::int64_t>(wanted.width_px);
    const std::vector<std::int64_t>& found = manifest.input.shape;
    std::vector<std::int64_t> expected = {kDynamic, height, width, 3};
    if (wanted.nchw) expected = {kDynamic, 3, height, width};
    if (found.size() != 4 || !std::equal(expected.begin() + 1, expected.end(), found.begin() + 1)) {
        fail_artifact(path + ": the manifest asks for " + std::to_string(height) + "x" +
                      std::to_string(width) + " images in " + (wanted.nchw ? "NCHW" : "NHWC") +
                      ", so the input must be " + shape_text(expected) + ", but it says " + shape_text(found) +
                      kWhatToDo);
    }
    const BatchProfile& batch = manifest.batch_profile;
    const auto static_batch = static_cast<std::size_t>(found[0]);
    if (found[0] != kDynamic && (batch.minimum != static_batch || batch.maximum != static_batch)) {
        fail_artifact(path + ": the input has the static batch " + std::to_string(found[0]) +
                      ", but the manifest's batch profile does not say so" + kWhatToDo);
    }
    const std::string dtype = wanted.in_graph ? "uint8" : "float32";
    if (manifest.input.dtype != dtype) {
        fail_artifact(path + ": normalization is " + (wanted.in_graph ? "" : "not ") +
                      "in the graph, so the input must be " + dtype + ", but the manifest says " +
                      manifest.input.dtype + kWhatToDo);
    }
}

void check_output(const Manifest& manifest, const std::string& path) {
    const std::vector<std::int64_t>& shape = manifest.output.shape;
    // Stops at the first step beyond the wanted size: a product of any more could overflow.
    const auto wanted = static_cast<std::int64_t>(manifest.feature_dim);
    std::int64_t dim = shape.empty() ? 0 : 1;
    for (std::size_t i = 1; i < shape.size() && dim >= 0 && dim <= wanted; ++i) dim *= shape[i];
    if (dim != wanted) {
        fail_artifact(path + ": the manifest says " + std::to_string(wanted) +
                      " dimensions, but its output has shape " + shape_text(shape) + kWhatToDo);
    }
    if (manifest.output.dtype != "float32") {
        fail_artifact(path + ": this runtime takes float32 features, the output is " + manifest.output.dtype +
                      kWhatToDo);
    }
}

}  // namespace

void check_manifest(const Manifest& manifest, const std::vector<TensorSpec>& inputs,
                    const std::vector<TensorSpec>& outputs, const std::string& path) {
    check_input(manifest, path);
    check_output(manifest, path);
    if (inputs.size() != 1) fail_artifact(path + ": expected one input, found " + names_of(inputs) + kWhatToDo);
    check_tensor("input", manifest.input, inputs, path);
    check_tensor("output", manifest.output, outputs, path);
}

}  // namespace reid
