// TensorRT 10.x and 11.x: an engine, and lanes in which batches run beside each other.
//
// Compiled where the headers are found, and opened at run time: a binary opens the libnvinfer of its headers' major version.
// It keeps to calls that 10.14 to 11.4 all have; tests/cpp/test_library.py compares them with both releases' own lists.
#include <NvInferRuntime.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <future>
#include <iterator>
#include <mutex>
#include <numeric>
#include <utility>

#include "backend.h"
#include "cuda_driver.h"
#include "engine_checks.h"
#include "error.h"
#include "file.h"
#include "library.h"

namespace reid {
namespace {

// While the network answers one batch, the next is copied in and the last one out.
constexpr std::size_t kNumLanes = 2;

std::string read_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fail_artifact(path + ": cannot be read. An engine's manifest is the file beside it: copy both files together.");
    }
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Keeps what TensorRT complains about, for the next error message.
class Logger final : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity > Severity::kERROR) return;
        try {
            const std::lock_guard lock(mutex_);
            said_ += (said_.empty() ? "" : "; ") + std::string(message);
        } catch (...) {  // out of memory: the message is lost, the failure itself is not
        }
    }

    std::string said() {
        const std::lock_guard lock(mutex_);
        return said_.empty() ? "it gave no reason" : std::exchange(said_, {});
    }

private:
    std::mutex mutex_;
    std::string said_;
};

/// The functions of a loaded libnvinfer.
class Runtime {
public:
    explicit Runtime(const char* library)
        : library_("TensorRT",
                   library_names(library, "REIDRUNTIME_TENSORRT", {"libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR)}),
                   "Install TensorRT " + std::to_string(NV_TENSORRT_MAJOR) +
                       ", or set REIDRUNTIME_TENSORRT to the path of its libnvinfer.so.") {
        const int number = library_.function<decltype(getInferLibVersion)>("getInferLibVersion")();
        const int major = number / 10000, minor = number / 100 % 100, patch = number % 100;
        version = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
        if (major != NV_TENSORRT_MAJOR) {
            fail_not_installed("TensorRT " + version + " was found, this libreidruntime was compiled for " +
                               std::to_string(NV_TENSORRT_MAJOR) + ".x.");
        }
    }

    std::unique_ptr<nvinfer1::IRuntime> make(Logger& logger) const {
        // What createInferRuntime() of the header does, without linking.
        const auto create = library_.function<void*(void*, std::int32_t)>("createInferRuntime_INTERNAL");
        return std::unique_ptr<nvinfer1::IRuntime>(
            static_cast<nvinfer1::IRuntime*>(create(&logger, static_cast<std::int32_t>(NV_TENSORRT_VERSION))));
    }

    std::string version;

private:
    Library library_;
};

std::string dtype_name(nvinfer1::DataType type) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT: return "float32";
        case nvinfer1::DataType::kUINT8: return "uint8";
        case nvinfer1::DataType::kHALF: return "float16";
        default: return "another type";
    }
}

nvinfer1::Dims dims(const TensorSpec& spec, std::size_t batch) {
    nvinfer1::Dims result{};
    result.nbDims = static_cast<std::int32_t>(spec.shape.size());
    std::copy(spec.shape.begin(), spec.shape.end(), result.d);
    result.d[0] = static_cast<std::int64_t>(batch);
    return result;
}

/// Bytes of one row of a checked tensor, uint8 or float32.
std::size_t row_bytes(const TensorSpec& spec) {
    const auto count = std::accumulate(spec.shape.begin() + 1, spec.shape.end(), std::int64_t{1}, std::multiplies<>());
    return static_cast<std::size_t>(count) * (spec.dtype == "uint8" ? 1 : sizeof(float));
}

/// An execution context with a stream, and buffers on the GPU and in page-locked memory; one batch at a time.
class Lane {
public:
    Lane(const CudaDevice& device, nvinfer1::ICudaEngine& engine, const Manifest& manifest, const std::string& path)
        : device_(device), driver_(device.driver()), manifest_(manifest), context_(engine.createExecutionContext()) {
        const std::string what = path + ": no room for another batch on the GPU";
        if (context_ == nullptr) fail_run(what);
        const std::size_t largest = *manifest.batch_profile.maximum;
        const std::size_t in_bytes = largest * row_bytes(manifest.input), out_bytes = largest * row_bytes(manifest.output);
        try {
            driver_.check(driver_.stream_create(&stream_, CU_STREAM_NON_BLOCKING), what);
            driver_.check(driver_.memory_alloc(&device_in_, in_bytes), what);
            driver_.check(driver_.memory_alloc(&device_out_, out_bytes), what);
            driver_.check(driver_.pinned_alloc(&pinned_in_, in_bytes), what);
            driver_.check(driver_.pinned_alloc(&pinned_out_, out_bytes), what);
        } catch (...) {
            release();
            throw;
        }
        if (!context_->setTensorAddress(manifest.input.name.c_str(), reinterpret_cast<void*>(device_in_)) ||
            !context_->setTensorAddress(manifest.output.name.c_str(), reinterpret_cast<void*>(device_out_))) {
            release();
            fail_run(path + ": TensorRT refuses the memory of its input or output");
        }
    }
    ~Lane() { release(); }
    Lane(const Lane&) = delete;
    Lane& operator=(const Lane&) = delete;

    /// Enqueue the copy in, the network and the copy out. False where TensorRT refuses the batch; a failure of CUDA is an
    /// error.
    bool start(const void* input, std::size_t batch, const std::string& what) {
        is_sound_ = false;
        const std::size_t in_bytes = batch * row_bytes(manifest_.input);
        std::memcpy(pinned_in_, input, in_bytes);
        driver_.check(driver_.copy_in(device_in_, pinned_in_, in_bytes, stream_), what);
        if (!context_->setInputShape(manifest_.input.name.c_str(), dims(manifest_.input, batch)) ||
            !context_->enqueueV3(stream_)) {
            return false;
        }
        driver_.check(driver_.copy_out(pinned_out_, device_out_, batch * row_bytes(manifest_.output), stream_), what);
        is_sound_ = true;
        return true;
    }

    /// Wait for the batch, and copy its answer.
    void finish(std::size_t batch, float* output, const std::string& what) {
        is_sound_ = false;
        driver_.check(driver_.stream_wait(stream_), what);
        is_sound_ = true;
        std::memcpy(output, pinned_out_, batch * row_bytes(manifest_.output));
    }

    /// Wait for what is under way; whether nothing has failed.
    bool settle() noexcept { return is_sound_ && driver_.stream_wait(stream_) == CUDA_SUCCESS; }

private:
    void release() noexcept {
        const CudaScope scope(device_);
        if (stream_ != nullptr) driver_.stream_wait(stream_);
        context_.reset();
        if (device_in_ != 0) driver_.memory_free(device_in_);
        if (device_out_ != 0) driver_.memory_free(device_out_);
        if (pinned_in_ != nullptr) driver_.pinned_free(pinned_in_);
        if (pinned_out_ != nullptr) driver_.pinned_free(pinned_out_);
        if (stream_ != nullptr) driver_.stream_destroy(stream_);
    }

    const CudaDevice& device_;
    const CudaDriver& driver_;
    const Manifest& manifest_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    CUstream stream_ = nullptr;
    CUdeviceptr device_in_ = 0;
    CUdeviceptr device_out_ = 0;
    void* pinned_in_ = nullptr;
    void* pinned_out_ = nullptr;
    bool is_sound_ = true;
};

class TensorRtBackend final : public Backend {
public:
    TensorRtBackend(const std::string& path, const Manifest& manifest, const OpenOptions& options)
        : path_(path), manifest_(manifest), library_(options.tensorrt_library), device_(path) {
        check_engine(manifest_, path, library_.version, device_.gpu(), options.allow_host_code);
        const std::vector<std::uint8_t> plan = read_file(path, fail_artifact);
        check_plan_bytes(*manifest_.engine, path, plan);
        const CudaScope scope(device_);
        runtime_ = library_.make(logger_);
        if (runtime_ == nullptr) fail_run(path + ": TensorRT cannot start: " + logger_.said());
        runtime_->setEngineHostCodeAllowed(options.allow_host_code);
        engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
        if (engine_ == nullptr) {
            fail_artifact(path + ": TensorRT " + library_.version + " cannot load it: " + logger_.said());
        }
        check_manifest(manifest_, tensors(nvinfer1::TensorIOMode::kINPUT), tensors(nvinfer1::TensorIOMode::kOUTPUT), path);
        check_profile();
        std::vector<LentLane> first;
        for (std::size_t i = 0; i < kNumLanes; ++i) first.push_back(new_lane());
    }

    ~TensorRtBackend() override {
        const CudaScope scope(device_);
        idle_.clear();
        engine_.reset();
        runtime_.reset();
    }

    Answer start(const void* input, std::size_t batch, float* output) override {
        const CudaScope scope(device_);
        LentLane lane = take_lane();
        const std::string what = path_ + ": failed on a batch of " + std::to_string(batch);
        if (!lane->start(input, batch, what)) fail_run(what + ": " + logger_.said());
        return std::async(std::launch::deferred, [this, lane = std::move(lane), batch, output, what]() mutable {
            const CudaScope own_scope(device_);
            lane->finish(batch, output, what);
            lane.reset();
        });
    }

    std::size_t num_in_flight() const override { return kNumLanes; }

    std::string describe() const override {
        return "TensorRT " + library_.version + ", " + device_.gpu().name + ", " + manifest_.precision;
    }

private:
    struct GiveBack {
        TensorRtBackend* backend;
        void operator()(Lane* lane) const noexcept { backend->take_back(lane); }
    };
    using LentLane = std::unique_ptr<Lane, GiveBack>;

    LentLane take_lane() {
        {
            const std::lock_guard lock(mutex_);
            if (!idle_.empty()) {
                LentLane lane(idle_.back().release(), {this});
                idle_.pop_back();
                return lane;
            }
        }
        return new_lane();
    }

    LentLane new_lane() {
        auto lane = std::make_unique<Lane>(device_, *engine_, manifest_, path_);
        const std::lock_guard lock(mutex_);
        idle_.reserve(++num_made_);  // room for all, so that giving one back cannot fail
        return {lane.release(), {this}};
    }

    /// Keep a lane for the next batch; one that has failed is not used again.
    void take_back(Lane* given) noexcept {
        const CudaScope scope(device_);
        std::unique_ptr<Lane> lane(given);
        if (!lane->settle()) return;
        const std::lock_guard lock(mutex_);
        idle_.push_back(std::move(lane));
    }

    std::vector<TensorSpec> tensors(nvinfer1::TensorIOMode mode) const {
        std::vector<TensorSpec> result;
        for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
            const char* name = engine_->getIOTensorName(i);
            if (engine_->getTensorIOMode(name) != mode) continue;
            const nvinfer1::Dims shape = engine_->getTensorShape(name);
            result.push_back({name, dtype_name(engine_->getTensorDataType(name)), {shape.d, shape.d + shape.nbDims}});
        }
        return result;
    }

    void check_profile() const {
        const char* name = manifest_.input.name.c_str();
        const auto smallest = engine_->getProfileShape(name, 0, nvinfer1::OptProfileSelector::kMIN).d[0];
        const auto largest = engine_->getProfileShape(name, 0, nvinfer1::OptProfileSelector::kMAX).d[0];
        const BatchProfile& profile = manifest_.batch_profile;
        if (smallest != static_cast<std::int64_t>(profile.minimum) ||
            largest != static_cast<std::int64_t>(*profile.maximum)) {
            fail_artifact(path_ + ": the engine takes batches of " + std::to_string(smallest) + " to " +
                          std::to_string(largest) + ", the manifest says " + std::to_string(profile.minimum) + " to " +
                          std::to_string(*profile.maximum) + ". Build it again.");
        }
    }

    std::string path_;
    Manifest manifest_;
    Runtime library_;
    CudaDevice device_;
    Logger logger_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::mutex mutex_;
    std::size_t num_made_ = 0;
    std::vector<std::unique_ptr<Lane>> idle_;
};

}  // namespace

Opened open_plan(const std::string& path, const OpenOptions& options) {
    Manifest manifest = manifest_from_json(read_text(path + ".json"), path + ".json");
    auto backend = std::make_unique<TensorRtBackend>(path, manifest, options);
    return {std::move(manifest), std::move(backend)};
}

}  // namespace reid
