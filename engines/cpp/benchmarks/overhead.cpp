// What the runtime costs on top of the network: bare OrtRun calls and calls of reid_embed in turn, A B A B, on the same pixels.
//
// Two ONNX Runtime sessions of one file differ by up to 4 % in speed, as their weights lie elsewhere in memory; which of the two
// is opened first matters. So both are opened anew in every round, in both orders, and a round is the mean of the two.
#define ORT_API_MANUAL_INIT
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <random>

#include "../apps/command.h"
#include "../apps/machine.h"

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kWarmUpPairs = 10;

const char* const kHelp =
    "Usage: reid_overhead ARTIFACT --onnxruntime LIB [--batch N] [--pairs N] [--rounds N] [--threads N] [--json FILE]\n"
    "\n"
    "Time reid_embed against the bare ONNX Runtime call, in turn, on an artifact whose input is uint8 NHWC pixels.\n";

double ms_of(const std::function<void()>& work) {
    const auto began = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/// The least that a program needs to run the file, with the options that the runtime sets.
class BareSession {
public:
    BareSession(const std::string& library, const std::string& artifact, int threads) {
        void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) throw apps::UsageError(dlerror());
        const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
        api_ = base()->GetApi(ORT_API_VERSION);
        OrtEnv* env = nullptr;
        OrtSessionOptions* options = nullptr;
        check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "bare", &env));  // the process has one: never released
        check(api_->CreateSessionOptions(&options));
        check(api_->SetIntraOpNumThreads(options, threads));
        check(api_->CreateSession(env, artifact.c_str(), options, &session_));
        api_->ReleaseSessionOptions(options);
        check(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory_));
    }

    /// Tie the input and output to memory, once.
    void bind(const Json& manifest, std::vector<std::uint8_t>& pixels, std::vector<float>& features, std::int64_t batch) {
        const auto tensor = [&](const Json& spec, void* data, std::size_t bytes, ONNXTensorElementDataType type) {
            std::vector<std::int64_t> shape = {batch};
            for (std::size_t i = 1; i < spec["shape"].size(); ++i) shape.push_back(spec["shape"][i]);
            OrtValue* value = nullptr;
            check(api_->CreateTensorWithDataAsOrtValue(memory_, data, bytes, shape.data(), shape.size(), type, &value));
            return value;
        };
        input_name_ = manifest["input"]["name"];
        output_name_ = manifest["output"]["name"];
        input_ = tensor(manifest["input"], pixels.data(), pixels.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
        output_ = tensor(manifest["output"], features.data(), features.size() * sizeof(float),
                         ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    }

    void run() {
        const char* const input_name = input_name_.c_str();
        const char* const output_name = output_name_.c_str();
        const OrtValue* const input = input_;
        check(api_->Run(session_, nullptr, &input_name, &input, 1, &output_name, 1, &output_));
    }

    ~BareSession() {
        api_->ReleaseValue(input_);
        api_->ReleaseValue(output_);
        api_->ReleaseMemoryInfo(memory_);
        api_->ReleaseSession(session_);
    }
    BareSession(const BareSession&) = delete;
    BareSession& operator=(const BareSession&) = delete;

private:
    void check(OrtStatus* status) const {
        if (status != nullptr) throw std::runtime_error(api_->GetErrorMessage(status));
    }

    const OrtApi* api_ = nullptr;
    OrtSession* session_ = nullptr;
    OrtMemoryInfo* memory_ = nullptr;
    std::string input_name_, output_name_;
    OrtValue* input_ = nullptr;
    OrtValue* output_ = nullptr;
};

/// What both sides share.
struct Setup {
    std::string artifact, library;
    reid_options options;
    std::size_t batch, pairs;
};

struct Sides {
    std::unique_ptr<reidruntime::Session> runtime;
    std::unique_ptr<BareSession> bare;

    Sides(const Setup& setup, bool bare_first) {
        if (bare_first) open_bare(setup);
        runtime = std::make_unique<reidruntime::Session>(setup.artifact, setup.options);
        if (!bare_first) open_bare(setup);
    }

private:
    void open_bare(const Setup& setup) {
        bare = std::make_unique<BareSession>(setup.library, setup.artifact, setup.options.threads);
    }
};

struct Medians {
    double bare_ms, embed_ms;
};

/// Medians over pairs of calls; which of the two calls comes first alternates too.
Medians measure(const Setup& setup, bool bare_first) {
    const Sides sides(setup, bare_first);
    const reidruntime::Session& session = *sides.runtime;
    const std::size_t image_bytes = session.height_px() * session.width_px() * 3;
    std::vector<std::uint8_t> pixels(setup.batch * image_bytes);
    std::mt19937 chance(0);
    std::generate(pixels.begin(), pixels.end(), [&] { return static_cast<std::uint8_t>(chance()); });
    std::vector<reid_image> images;
    for (std::size_t i = 0; i < setup.batch; ++i) {
        images.push_back(
            reidruntime::image_from_pixels(pixels.data() + i * image_bytes, session.height_px(), session.width_px()));
    }
    std::vector<float> features(setup.batch * session.feature_dim()), bare_features(features.size());
    sides.bare->bind(Json::parse(session.manifest_json()), pixels, bare_features, static_cast<std::int64_t>(setup.batch));
    const auto run_bare = [&] { sides.bare->run(); };
    const auto embed = [&] {
        if (reid_embed(session.get(), images.data(), images.size(), setup.batch, features.data()) != REID_OK) {
            throw std::runtime_error(reid_last_error());
        }
    };
    std::vector<double> bare_ms, embed_ms;
    for (std::size_t i = 0; i < setup.pairs + kWarmUpPairs; ++i) {
        double bare = 0, runtime = 0;
        if (i % 2 == 0) bare = ms_of(run_bare);
        runtime = ms_of(embed);
        if (i % 2 == 1) bare = ms_of(run_bare);
        if (i >= kWarmUpPairs) bare_ms.push_back(bare), embed_ms.push_back(runtime);
    }
    if (features != bare_features) throw std::runtime_error("reid_embed and the bare call answer differently");
    return {median(bare_ms), median(embed_ms)};
}

void overhead(int argc, char** argv) {
    std::string library, json;
    std::size_t batch = 1, pairs = 100, rounds = 15;
    reid_options options = reidruntime::default_options();
    options.threads = 1;
    const std::vector<std::string> arguments = apps::read_arguments(
        argc, argv,
        {{"onnxruntime", 0, [&](const std::string& text) { library = text; }},
         {"batch", 0, [&](const std::string& text) { batch = apps::positive(text, "batch"); }},
         {"pairs", 0, [&](const std::string& text) { pairs = apps::positive(text, "pairs"); }},
         {"rounds", 0, [&](const std::string& text) { rounds = apps::positive(text, "rounds"); }},
         {"threads", 0,
          [&](const std::string& text) { options.threads = static_cast<int>(apps::positive(text, "threads")); }},
         {"json", 0, [&](const std::string& text) { json = text; }}},
        kHelp);
    if (arguments.size() != 1 || library.empty()) throw apps::UsageError("expected ARTIFACT --onnxruntime LIB");
    options.onnxruntime_library = library.c_str();
    Json report = apps::new_record("overhead");
    const Setup setup{arguments[0], library, options, batch, pairs};
    std::vector<double> bare_ms, embed_ms, overheads;
    for (std::size_t round = 0; round < rounds; ++round) {
        const Medians first = measure(setup, true), second = measure(setup, false);
        bare_ms.push_back((first.bare_ms + second.bare_ms) / 2);
        embed_ms.push_back((first.embed_ms + second.embed_ms) / 2);
        overheads.push_back((first.embed_ms / first.bare_ms + second.embed_ms / second.bare_ms) / 2 - 1);
    }
    report.update({{"artifact", setup.artifact.substr(setup.artifact.find_last_of('/') + 1)},
                   {"session", reidruntime::Session(setup.artifact, options).description()},
                   {"batch_size", batch},
                   {"rounds", rounds},
                   {"pairs_per_round", 2 * pairs},
                   {"bare_p50_ms", median(bare_ms)},
                   {"reid_embed_p50_ms", median(embed_ms)},
                   {"overhead", median(overheads)},
                   {"overhead_of_rounds", overheads}});
    std::cout << report.dump(2) << '\n';
    if (!json.empty()) apps::write_whole(json, report.dump(2) + "\n");
}

}  // namespace

int main(int argc, char** argv) {
    return apps::exit_status_of([&] { overhead(argc, argv); });
}
