#include "session.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <memory>
#include <utility>

#include "error.h"
#include "preprocess.h"
#include "reader.h"
#include "threads.h"

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
        fail_artifact(artifact + ": no such file, or not a regular one. Expected an ONNX file or a TensorRT engine.");
    }
    const bool is_plan = path.extension() == ".engine" || path.extension() == ".plan";
    return is_plan ? open_plan(artifact, options) : open_onnx(artifact, options);
}

}  // namespace

Session::Session(const std::string& artifact, const reid_options& options)
    : num_threads_(num_threads(options.threads)),
      opened_(open(artifact, open_options(options))),
      description_(opened_.backend->describe() + "; decode libjpeg-turbo, resize C++") {
    opened_.manifest.preprocess.bgr_pixels = options.bgr_pixels != 0;
}

void Session::embed(std::span<const reid_image> images, std::size_t wanted, float* features) const {
    const Preprocess& preprocess = manifest().preprocess;
    if (images.size() == 1) {  // not worth a thread
        const auto pixels = std::make_unique_for_overwrite<std::uint8_t[]>(image_bytes(preprocess));
        prepare_image(images[0], 0, preprocess, pixels.get());
        return start({pixels.get(), image_bytes(preprocess)}, features).get();
    }
    const std::size_t size = std::min(batch_size(wanted), images.size());
    BatchReader reader(images, size, preprocess, num_threads_);
    answer_all([&] { return reader.next(); }, features);
}

void Session::run(std::span<const std::uint8_t> pixels, float* features) const {
    const std::size_t bytes = image_bytes(manifest().preprocess);
    const std::size_t limit = manifest().batch_profile.maximum.value_or(pixels.size() / bytes) * bytes;
    const auto next = [&] {
        const std::span batch = pixels.first(std::min(limit, pixels.size()));
        pixels = pixels.subspan(batch.size());
        return batch;
    };
    answer_all(next, features);
}

std::size_t Session::batch_size(std::size_t wanted) const {
    const BatchProfile& profile = manifest().batch_profile;
    const std::size_t fallback = profile.maximum == profile.minimum ? profile.minimum : kDefaultBatch;
    const std::size_t size = wanted != 0 ? wanted : profile.optimum.value_or(fallback);
    return std::min(size, profile.maximum.value_or(size));
}

template <typename NextBatch>
void Session::answer_all(NextBatch next, float* features) const {
    std::deque<Answer> under_way;
    for (std::span<const std::uint8_t> batch = next(); !batch.empty(); batch = next()) {
        if (under_way.size() == opened_.backend->num_in_flight()) {
            under_way.front().get();
            under_way.pop_front();
        }
        under_way.push_back(start(batch, features));
        features += batch.size() / image_bytes(manifest().preprocess) * manifest().feature_dim;
    }
    for (Answer& answer : under_way) answer.get();
}

Answer Session::start(std::span<const std::uint8_t> batch, float* features) const {
    const Preprocess& preprocess = manifest().preprocess;
    const std::size_t bytes = image_bytes(preprocess), num_images = batch.size() / bytes;
    const std::size_t smallest = manifest().batch_profile.minimum;
    if (num_images < smallest) {  // repeat the last image up to the smallest batch that the artifact takes
        std::vector<std::uint8_t> padded(batch.begin(), batch.end());
        for (std::size_t i = num_images; i < smallest; ++i) {
            padded.insert(padded.end(), batch.end() - static_cast<std::ptrdiff_t>(bytes), batch.end());
        }
        const std::size_t dim = manifest().feature_dim;
        auto rows = std::make_unique<float[]>(smallest * dim);
        Answer answer = start(padded, rows.get());
        return std::async(std::launch::deferred,
                          [rows = std::move(rows), answer = std::move(answer), features, size = num_images * dim]() mutable {
                              answer.get();
                              std::copy_n(rows.get(), size, features);
                          });
    }
    if (!preprocess.in_graph) {
        std::vector<float> floats(batch.size());
        normalize(batch, preprocess, floats.data());
        return opened_.backend->start(floats.data(), num_images, features);
    }
    if (preprocess.nchw) {
        std::vector<std::uint8_t> ordered(batch.size());
        planes(batch, preprocess, ordered.data());
        return opened_.backend->start(ordered.data(), num_images, features);
    }
    return opened_.backend->start(batch.data(), num_images, features);
}

}  // namespace reid
