#include "session.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "cpus.h"
#include "error.h"
#include "preprocess.h"
#include "reader.h"

namespace reid {
namespace {

constexpr std::size_t kDefaultBatch = 32;

OpenOptions open_options(const reid_options& options) {
    return {static_cast<int>(num_threads(options.threads)), options.onnxruntime_library,
            options.tensorrt_library, options.allow_host_code != 0};
}

Opened open(const std::string& artifact, const OpenOptions& options) {
    const std::filesystem::path path(artifact);
    std::error_code problem;
    if (!std::filesystem::is_regular_file(path, problem)) {
        fail_artifact(artifact + ": no such file, or not a regular one. Expected an ONNX file or a TensorRT plan.");
    }
    const bool is_plan = path.extension() == ".engine" || path.extension() == ".plan";
    return is_plan ? open_plan(artifact, options) : open_onnx(artifact, options);
}

}  // namespace

Session::Session(const std::string& artifact, const reid_options& options)
    : num_threads_(static_cast<std::size_t>(open_options(options).threads)),
      opened_(open(artifact, open_options(options))),
      description_(opened_.backend->describe() + "; decode libjpeg-turbo, resize C++") {}

void Session::embed(std::span<const reid_image> images, std::size_t wanted, float* features) const {
    const Preprocess& preprocess = manifest().preprocess;
    if (images.size() == 1) {  // not worth a thread
        const auto pixels = std::make_unique_for_overwrite<std::uint8_t[]>(image_bytes(preprocess));
        prepare_image(images[0], 0, preprocess, pixels.get());
        return answer({pixels.get(), image_bytes(preprocess)}, features);
    }
    const std::size_t size = std::min(batch_size(wanted), images.size());
    BatchReader reader(images, size, preprocess, num_threads_);
    for (auto batch = reader.next(); !batch.empty(); batch = reader.next()) {
        answer(batch, features);
        features += batch.size() / image_bytes(preprocess) * manifest().feature_dim;
    }
}

void Session::run(std::span<const std::uint8_t> pixels, float* features) const {
    const std::size_t bytes = image_bytes(manifest().preprocess);
    const std::size_t limit = manifest().batch_profile.maximum.value_or(pixels.size() / bytes) * bytes;
    while (!pixels.empty()) {
        const std::span batch = pixels.first(std::min(limit, pixels.size()));
        answer(batch, features);
        features += batch.size() / bytes * manifest().feature_dim;
        pixels = pixels.subspan(batch.size());
    }
}

std::size_t Session::batch_size(std::size_t wanted) const {
    const BatchProfile& profile = manifest().batch_profile;
    const std::size_t fallback = profile.maximum == profile.minimum ? profile.minimum : kDefaultBatch;
    const std::size_t size = wanted != 0 ? wanted : profile.optimum.value_or(fallback);
    return std::min(size, profile.maximum.value_or(size));
}

void Session::answer(std::span<const std::uint8_t> batch, float* features) const {
    const Preprocess& preprocess = manifest().preprocess;
    const std::size_t bytes = image_bytes(preprocess), num_images = batch.size() / bytes;
    const std::size_t smallest = manifest().batch_profile.minimum;
    if (num_images < smallest) {  // repeat the last image up to the smallest batch that the artifact takes
        std::vector<std::uint8_t> padded(batch.begin(), batch.end());
        for (std::size_t i = num_images; i < smallest; ++i) {
            padded.insert(padded.end(), batch.end() - static_cast<std::ptrdiff_t>(bytes), batch.end());
        }
        std::vector<float> rows(smallest * manifest().feature_dim);
        answer(padded, rows.data());
        std::copy_n(rows.begin(), num_images * manifest().feature_dim, features);
    } else if (!preprocess.in_graph) {
        std::vector<float> floats(batch.size());
        normalize(batch, preprocess, floats.data());
        opened_.backend->run(floats.data(), num_images, features);
    } else if (preprocess.nchw) {
        std::vector<std::uint8_t> ordered(batch.size());
        planes(batch, preprocess, ordered.data());
        opened_.backend->run(ordered.data(), num_images, features);
    } else {
        opened_.backend->run(batch.data(), num_images, features);
    }
}

}  // namespace reid
