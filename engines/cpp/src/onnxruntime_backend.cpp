// ONNX Runtime on the CPU. The library is opened at run time: one binary works with every release from the header's on.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_c_api.h>

#include <numeric>

#include "backend.h"
#include "error.h"
#include "library.h"

namespace reid {
namespace {

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

const char* const kInstall =
    "Install it (pip install onnxruntime, or Debian's libonnxruntime), and set its path as onnxruntime_library or in "
    "REIDRUNTIME_ONNXRUNTIME.";

/// The functions of a loaded ONNX Runtime.
class Runtime {
public:
    explicit Runtime(const char* library)
        : library_("ONNX Runtime",
                   library_names(library, "REIDRUNTIME_ONNXRUNTIME", {"libonnxruntime.so", "libonnxruntime.so.1"}),
                   kInstall) {
        const OrtApiBase* base = library_.function<const OrtApiBase*()>("OrtGetApiBase")();
        version = base->GetVersionString();
        api = base->GetApi(ORT_API_VERSION);
        if (api == nullptr) {
            fail_not_installed("ONNX Runtime " + version + " is too old, expected 1." + std::to_string(ORT_API_VERSION) +
                               " or later. " + kInstall);
        }
    }

    /// ONNX Runtime's own words about a failure, whose status is released.
    std::string reason(OrtStatus* status) const {
        const Owned<OrtStatus> owned(status, api->ReleaseStatus);
        return api->GetErrorMessage(status);
    }

    std::string version;
    const OrtApi* api = nullptr;

private:
    Library library_;
};

std::string dtype_name(ONNXTensorElementDataType type) {
    switch (type) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return "float32";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return "uint8";
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return "float16";
        default: return "another type";
    }
}

class OnnxRuntimeBackend final : public Backend {
public:
    OnnxRuntimeBackend(const std::string& path, const OpenOptions& options)
        : path_(path), threads_(options.threads), runtime_(options.onnxruntime_library) {
        const OrtApi& api = *runtime_.api;
        OrtEnv* env = nullptr;
        check(api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "reidruntime", &env));
        env_.reset(env);
        load(false);
        OrtMemoryInfo* memory = nullptr;
        check(api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
        memory_.reset(memory);
    }

    /// Read the manifest out of the file, and compare it with the rest of the file.
    const Manifest& read_manifest() {
        manifest_ = manifest_from_json(metadata(kMetadataKey), path_);
        // Signed activations overflow the integer kernels of many CPUs: computed one by one, in float32, Q/DQ pairs do not.
        by_definition_ = manifest_.quantized_for == "tensorrt";
        if (by_definition_) load(true);
        const OrtApi& api = *runtime_.api;
        check_manifest(manifest_, tensors(api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo),
                       tensors(api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo), path_);
        return manifest_;
    }

    /// Answers at once.
    Answer start(const void* input, std::size_t batch, float* output) override {
        const Owned<OrtValue> image = tensor(manifest_.input, const_cast<void*>(input), batch);
        const Owned<OrtValue> features = tensor(manifest_.output, output, batch);
        const char* const input_name = manifest_.input.name.c_str();
        const char* const output_name = manifest_.output.name.c_str();
        const OrtValue* const images = image.get();
        OrtValue* answer = features.get();
        check_run(runtime_.api->Run(session_.get(), nullptr, &input_name, &images, 1, &output_name, 1, &answer), batch);
        return std::async(std::launch::deferred, [] {});
    }

    std::size_t num_in_flight() const override { return 1; }

    std::string describe() const override {
        return "ONNX Runtime " + runtime_.version + ", CPU, " + std::to_string(threads_) + " threads, " +
               manifest_.precision + (by_definition_ ? ", as defined, in fp32" : "");
    }

private:
    void load(bool by_definition) {
        const OrtApi& api = *runtime_.api;
        OrtSessionOptions* raw = nullptr;
        check(api.CreateSessionOptions(&raw));
        const Owned<OrtSessionOptions> session_options(raw, api.ReleaseSessionOptions);
        check(api.SetIntraOpNumThreads(raw, threads_));
        if (by_definition) check(api.AddSessionConfigEntry(raw, "session.disable_quant_qdq", "1"));
        OrtSession* session = nullptr;
        check(api.CreateSession(env_.get(), path_.c_str(), raw, &session));
        session_.reset(session);
    }

    void check(OrtStatus* status) const {
        if (status != nullptr) fail_artifact(path_ + ": ONNX Runtime cannot load it: " + runtime_.reason(status));
    }

    void check_run(OrtStatus* status, std::size_t batch) const {
        if (status == nullptr) return;
        fail_run(path_ + ": ONNX Runtime failed on a batch of " + std::to_string(batch) + ": " + runtime_.reason(status));
    }

    std::string metadata(const char* key) const {
        const OrtApi& api = *runtime_.api;
        OrtModelMetadata* raw = nullptr;
        check(api.SessionGetModelMetadata(session_.get(), &raw));
        const Owned<OrtModelMetadata> entries(raw, api.ReleaseModelMetadata);
        OrtAllocator* allocator = nullptr;
        check(api.GetAllocatorWithDefaultOptions(&allocator));
        char* value = nullptr;
        check(api.ModelMetadataLookupCustomMetadataMap(raw, allocator, key, &value));
        if (value == nullptr) {
            fail_artifact(path_ + ": the file carries no manifest, so its image size, mean, std, channel order and layout " +
                          "are not known. Export it with reidexport onnx.");
        }
        const std::string text = value;
        allocator->Free(allocator, value);
        return text;
    }

    template <typename Count, typename Name, typename Type>
    std::vector<TensorSpec> tensors(Count count_of, Name name_of, Type type_of) const {
        const OrtApi& api = *runtime_.api;
        OrtAllocator* allocator = nullptr;
        check(api.GetAllocatorWithDefaultOptions(&allocator));
        std::size_t count = 0;
        check(count_of(session_.get(), &count));
        std::vector<TensorSpec> result(count);
        for (std::size_t i = 0; i < count; ++i) {
            char* name = nullptr;
            check(name_of(session_.get(), i, allocator, &name));
            result[i].name = name;
            allocator->Free(allocator, name);
            OrtTypeInfo* raw = nullptr;
            check(type_of(session_.get(), i, &raw));
            const Owned<OrtTypeInfo> type(raw, api.ReleaseTypeInfo);
            const OrtTensorTypeAndShapeInfo* info = nullptr;
            check(api.CastTypeInfoToTensorInfo(raw, &info));
            if (info == nullptr) continue;  // not a tensor: its empty dtype fits no manifest
            ONNXTensorElementDataType dtype = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
            check(api.GetTensorElementType(info, &dtype));
            result[i].dtype = dtype_name(dtype);
            std::size_t rank = 0;
            check(api.GetDimensionsCount(info, &rank));
            result[i].shape.resize(rank);
            check(api.GetDimensions(info, result[i].shape.data(), rank));
        }
        return result;
    }

    /// A tensor in the caller's memory: nothing is copied.
    Owned<OrtValue> tensor(const TensorSpec& spec, void* data, std::size_t batch) const {
        std::vector<std::int64_t> shape = spec.shape;
        shape[0] = static_cast<std::int64_t>(batch);
        const bool is_bytes = spec.dtype == "uint8";
        const auto count = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
        OrtValue* value = nullptr;
        check_run(runtime_.api->CreateTensorWithDataAsOrtValue(
                      memory_.get(), data, static_cast<std::size_t>(count) * (is_bytes ? 1 : sizeof(float)), shape.data(),
                      shape.size(), is_bytes ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                      &value),
                  batch);
        return {value, runtime_.api->ReleaseValue};
    }

    std::string path_;
    int threads_;
    Runtime runtime_;
    Manifest manifest_;
    bool by_definition_ = false;
    Owned<OrtEnv> env_{nullptr, runtime_.api->ReleaseEnv};
    Owned<OrtSession> session_{nullptr, runtime_.api->ReleaseSession};
    Owned<OrtMemoryInfo> memory_{nullptr, runtime_.api->ReleaseMemoryInfo};
};

}  // namespace

Opened open_onnx(const std::string& path, const OpenOptions& options) {
    auto backend = std::make_unique<OnnxRuntimeBackend>(path, options);
    Manifest manifest = backend->read_manifest();
    return {std::move(manifest), std::move(backend)};
}

}  // namespace reid
