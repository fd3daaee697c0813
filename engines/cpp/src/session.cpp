#include "session.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <memory>
#include <utility>

#include "error.h"
#include "file.h"
#include "preprocess.h"
#include "reader.h"
#include "sha256.h"
#include "threads.h"

namespace reid {
namespace {

constexpr std::size_t kDefaultBatch = 32;

OpenOptions open_options(const reid_options& options) {
    return {static_cast<int>(num_threads(options.threads)), options.onnxruntime_library,
            options.tensorrt_library, options.allow_host_code != 0};
}

Opened open(const std::string& artifact, const reid_options& options) {
    const std::filesystem::path path(artifact);
    std::error_code problem;
    if (!std::filesystem::is_regular_file(path, problem)) {
        fail_artifact(artifact + ": no such file, or not a regular one. Expected an ONNX file or a TensorRT engine.");
    }
    const bool is_plan = path.extension() == ".engine" || path.extension() == ".plan";
    const OpenOptions wanted = open_options(options);
    Opened opened = is_plan ? open_plan(artifact, wanted) : open_onnx(artifact, wanted);
    opened.manifest.preprocess.bgr_pixels = options.bgr_pixels != 0;
    return opened;
}

/// Open the network of one camera, which lies beside the artifact and is fed and answers as it does.
Opened open_network(const CameraStatistics& camera, const std::string& artifact, const Manifest& manifest,
                    const reid_options& options) {
    const std::string name = std::filesystem::path(camera.network->name).filename();
    const std::string path = std::filesystem::path(artifact).replace_filename(name);
    const std::string what = path + ": the network of camera " + std::to_string(camera.camera);
    std::error_code problem;
    if (!std::filesystem::is_regular_file(path, problem) ||
        sha256(read_file(path, fail_artifact)) != camera.network->sha256) {
        fail_artifact(what + " is missing, or not the one that the camera profile was measured with. Copy all files " +
                      "that reidexport adapt wrote.");
    }
    Opened opened = open(path, options);
    const Manifest& own = opened.manifest;
    if (own.preprocess != manifest.preprocess || own.batch_profile != manifest.batch_profile ||
        own.feature_dim != manifest.feature_dim || own.normalized != manifest.normalized ||
        own.metric != manifest.metric) {
        fail_artifact(what + " takes other images or batches than " + artifact + ", or gives features of another " +
                      "kind. Write both again: reidexport adapt CHECKPOINT CROPS -o FILE --per-camera.");
    }
    return opened;
}

/// Start a batch, its last image repeated up to the smallest batch that the network takes.
Answer start_network(const Opened& network, std::span<const std::uint8_t> batch, float* features) {
    const Manifest& manifest = network.manifest;
    const Preprocess& preprocess = manifest.preprocess;
    const std::size_t bytes = image_bytes(preprocess), num_images = batch.size() / bytes;
    const std::size_t smallest = manifest.batch_profile.minimum;
    if (num_images < smallest) {
        std::vector<std::uint8_t> padded(batch.begin(), batch.end());
        for (std::size_t i = num_images; i < smallest; ++i) {
            padded.insert(padded.end(), batch.end() - static_cast<std::ptrdiff_t>(bytes), batch.end());
        }
        const std::size_t dim = manifest.feature_dim;
        auto rows = std::make_unique<float[]>(smallest * dim);
        Answer answer = start_network(network, padded, rows.get());
        return std::async(std::launch::deferred,
                          [rows = std::move(rows), answer = std::move(answer), features, size = num_images * dim]() mutable {
                              answer.get();
                              std::copy_n(rows.get(), size, features);
                          });
    }
    if (!preprocess.in_graph) {
        std::vector<float> floats(batch.size());
        normalize(batch, preprocess, floats.data());
        return network.backend->start(floats.data(), num_images, features);
    }
    if (preprocess.nchw) {
        std::vector<std::uint8_t> ordered(batch.size());
        planes(batch, preprocess, ordered.data());
        return network.backend->start(ordered.data(), num_images, features);
    }
    return network.backend->start(batch.data(), num_images, features);
}

}  // namespace

Session::Session(const std::string& artifact, const reid_options& options)
    : num_threads_(num_threads(options.threads)),
      opened_(open(artifact, options)),
      description_(opened_.backend->describe() + "; decode libjpeg-turbo, resize C++") {
    if (options.cameras != nullptr) {
        use_profile(read_camera_profile(options.cameras, artifact, manifest()), artifact, options);
    }
}

void Session::use_profile(CameraProfile profile, const std::string& artifact, const reid_options& options) {
    for (std::size_t place = 0; place < profile.cameras.size(); ++place) {
        const CameraStatistics& camera = profile.cameras[place];
        if (camera.network) networks_.emplace(place, open_network(camera, artifact, manifest(), options));
    }
    if (!profile.standardizes && networks_.empty()) return;  // it changes nothing
    standardizer_.emplace(std::move(profile), options.unknown_camera_mean != 0, manifest().normalized);
}

void Session::embed(std::span<const reid_image> images, std::size_t wanted, float* features) const {
    const Preprocess& preprocess = manifest().preprocess;
    const std::vector<std::size_t> places = standardizer_ ? standardizer_->places(images) : std::vector<std::size_t>();
    if (images.size() == 1) {  // not worth a thread
        const auto pixels = std::make_unique_for_overwrite<std::uint8_t[]>(image_bytes(preprocess));
        prepare_image(images[0], 0, preprocess, pixels.get());
        return start({pixels.get(), image_bytes(preprocess)}, places, features).get();
    }
    const std::size_t size = std::min(batch_size(wanted), images.size());
    BatchReader reader(images, size, preprocess, num_threads_);
    answer_all([&] { return reader.next(); }, places, features);
}

void Session::run(std::span<const std::uint8_t> pixels, float* features) const {
    const std::size_t bytes = image_bytes(manifest().preprocess), num_images = pixels.size() / bytes;
    const std::vector<std::size_t> places =
        standardizer_ ? standardizer_->places_without_cameras(num_images) : std::vector<std::size_t>();
    const std::size_t limit = manifest().batch_profile.maximum.value_or(num_images) * bytes;
    const auto next = [&] {
        const std::span batch = pixels.first(std::min(limit, pixels.size()));
        pixels = pixels.subspan(batch.size());
        return batch;
    };
    answer_all(next, places, features);
}

std::size_t Session::batch_size(std::size_t wanted) const {
    const BatchProfile& profile = manifest().batch_profile;
    const std::size_t fallback = profile.maximum == profile.minimum ? profile.minimum : kDefaultBatch;
    const std::size_t size = wanted != 0 ? wanted : profile.optimum.value_or(fallback);
    return std::min(size, profile.maximum.value_or(size));
}

template <typename NextBatch>
void Session::answer_all(NextBatch next, Places places, float* features) const {
    std::deque<Answer> under_way;
    for (std::span<const std::uint8_t> batch = next(); !batch.empty(); batch = next()) {
        if (under_way.size() == opened_.backend->num_in_flight()) {
            under_way.front().get();
            under_way.pop_front();
        }
        const std::size_t num_images = batch.size() / image_bytes(manifest().preprocess);
        const Places own = places.first(std::min(num_images, places.size()));
        under_way.push_back(start(batch, own, features));
        places = places.subspan(own.size());
        features += num_images * manifest().feature_dim;
    }
    for (Answer& answer : under_way) answer.get();
}

Answer Session::start(std::span<const std::uint8_t> batch, Places places, float* features) const {
    if (places.empty()) return start_network(opened_, batch, features);
    Answer answer =
        networks_.empty() ? start_network(opened_, batch, features) : start_by_camera(batch, places, features);
    return std::async(std::launch::deferred, [this, answer = std::move(answer), places, features]() mutable {
        answer.get();
        standardizer_->standardize(features, places);
    });
}

Answer Session::start_by_camera(std::span<const std::uint8_t> batch, Places places, float* features) const {
    struct Part {
        std::vector<std::size_t> images;  // their numbers in the batch
        std::unique_ptr<float[]> rows;
        Answer answer;
    };
    const std::size_t bytes = image_bytes(manifest().preprocess), dim = manifest().feature_dim;
    std::map<const Opened*, Part> parts;
    for (std::size_t i = 0; i < places.size(); ++i) {
        const auto own = networks_.find(places[i]);
        parts[own == networks_.end() ? &opened_ : &own->second].images.push_back(i);
    }
    for (auto& [network, part] : parts) {
        std::vector<std::uint8_t> pixels;
        for (const std::size_t i : part.images) {
            const std::span image = batch.subspan(i * bytes, bytes);
            pixels.insert(pixels.end(), image.begin(), image.end());
        }
        part.rows = std::make_unique<float[]>(part.images.size() * dim);
        part.answer = start_network(*network, pixels, part.rows.get());
    }
    return std::async(std::launch::deferred, [parts = std::move(parts), dim, features]() mutable {
        for (auto& [network, part] : parts) {
            part.answer.get();
            for (std::size_t row = 0; row < part.images.size(); ++row) {
                std::copy_n(part.rows.get() + row * dim, dim, features + part.images[row] * dim);
            }
        }
    });
}

}  // namespace reid
