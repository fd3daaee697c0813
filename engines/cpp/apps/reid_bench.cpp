// reid_bench: how fast an artifact answers, in the form of `reidexport bench`.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>

#include "command.h"
#include "machine.h"

namespace {

using Json = nlohmann::ordered_json;

const char* const kHelp =
    "Usage: reid_bench ARTIFACT [OPTION...]\n"
    "\n"
    "Measure latency and throughput of the network alone, from pixels in memory; with --images also from files.\n"
    "\n"
    "      --batch N,N,...   batch sizes to measure; default: 1,8,32\n"
    "      --seconds S       how long to measure each batch size; default: 3\n"
    "      --images PATH     a file or folder to measure from, reading included; may be repeated\n"
    "      --threads N       for the network, and as many again for reading; default: all CPUs of this process\n"
    "      --onnxruntime LIB path of libonnxruntime.so\n"
    "      --tensorrt LIB    path of libnvinfer.so\n"
    "      --json FILE       also write the result, under the keys of reidexport bench\n"
    "\n"
    "Exit status: 0 done, 2 bad input or usage, 3 something is not installed or the machine failed.\n";

constexpr std::size_t kMinRepeats = 5;
constexpr double kWarmUpSeconds = 0.5;
constexpr double kBusyShare = 0.3;
constexpr std::size_t kTurns = 10;

using Pixels = std::vector<std::uint8_t>;

double seconds_of(const std::function<void()>& work) {
    const auto began = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

/// Noise, as zeros would let some kernels off lightly.
Pixels noise(const reidruntime::Session& session, std::size_t batch) {
    Pixels pixels(batch * session.height_px() * session.width_px() * 3);
    std::mt19937 chance(0);
    std::generate(pixels.begin(), pixels.end(), [&] { return static_cast<std::uint8_t>(chance()); });
    return pixels;
}

/// Durations in seconds of runs, one after the other, until the time is over.
std::vector<double> run_for(const reidruntime::Session& session, const Pixels& batch, double seconds,
                            std::size_t min_repeats) {
    std::vector<double> times;
    for (double total = 0; times.size() < min_repeats || total < seconds; total += times.back()) {
        times.push_back(seconds_of([&] { (void)session.run(batch); }));
    }
    return times;
}

/// With linear interpolation, as numpy's.
double percentile(const std::vector<double>& sorted, double percent) {
    const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    return std::lerp(sorted[below], sorted[above], place - std::floor(place));
}

double sum(const std::vector<double>& times) { return std::accumulate(times.begin(), times.end(), 0.0); }

Json time_batch(const reidruntime::Session& session, std::size_t batch_size, double seconds) {
    const Pixels batch = noise(session, batch_size);
    run_for(session, batch, std::min(kWarmUpSeconds, seconds), 2);
    std::vector<double> times = run_for(session, batch, seconds, kMinRepeats);
    const double images_per_s = static_cast<double>(batch_size * times.size()) / sum(times);
    std::sort(times.begin(), times.end());
    return {{"batch_size", batch_size},
            {"repeats", times.size()},
            {"p50_ms", percentile(times, 50) * 1000},
            {"p90_ms", percentile(times, 90) * 1000},
            {"p99_ms", percentile(times, 99) * 1000},
            {"images_per_s", images_per_s}};
}

/// Files and network in turn, several times over, as machines drift.
Json time_files(const reidruntime::Session& session, const std::vector<std::string>& paths, std::size_t batch_size,
                double seconds) {
    const std::span<const std::string> all(paths);
    (void)session.embed(all.first(std::min(batch_size, paths.size())), batch_size);
    const Pixels batch = noise(session, batch_size);
    const std::size_t num_turns = std::min(kTurns, (paths.size() + batch_size - 1) / batch_size);
    const double per_turn = seconds / static_cast<double>(num_turns);
    std::vector<double> times = run_for(session, batch, per_turn, 1);
    double elapsed = 0;
    for (std::size_t turn = 0; turn < num_turns; ++turn) {
        const std::size_t start = turn * paths.size() / num_turns, end = (turn + 1) * paths.size() / num_turns;
        elapsed += seconds_of([&] { (void)session.embed(all.subspan(start, end - start), batch_size); });
        const std::vector<double> more = run_for(session, batch, per_turn, 1);
        times.insert(times.end(), more.begin(), more.end());
    }
    const double speed = static_cast<double>(paths.size()) / elapsed;
    const double net_speed = static_cast<double>(batch_size * times.size()) / sum(times);
    return {{"num_images", paths.size()},   {"batch_size", batch_size},     {"seconds", elapsed},
            {"images_per_s", speed},        {"net_images_per_s", net_speed}, {"share_of_net", speed / net_speed}};
}

Json warnings(const Json& machine) {
    const double load = machine["load_average"], cores = machine["cores"];
    if (load < kBusyShare * cores) return Json::array();
    std::ostringstream text;
    text << "The machine was busy before the measurement: load average " << load << " on " << cores << " cores.";
    return {text.str()};
}

void print(const Json& report) {
    for (const Json& warning : report["warnings"]) std::cerr << "warning: " << warning.get<std::string>() << '\n';
    std::cout << report["session"].get<std::string>() << '\n' << " batch    p50 ms    p90 ms    p99 ms  images/s\n";
    for (const Json& row : report["batches"]) {
        std::printf("%6d %9.2f %9.2f %9.2f %9.1f\n", row["batch_size"].get<int>(), row["p50_ms"].get<double>(),
                    row["p90_ms"].get<double>(), row["p99_ms"].get<double>(), row["images_per_s"].get<double>());
    }
    if (const Json& whole = report["end_to_end"]; !whole.is_null()) {
        std::printf("from %d files: %.1f images/s, %.1f%% of the network alone at batch %d (%.1f images/s)\n",
                    whole["num_images"].get<int>(), whole["images_per_s"].get<double>(),
                    whole["share_of_net"].get<double>() * 100, whole["batch_size"].get<int>(),
                    whole["net_images_per_s"].get<double>());
    }
}

std::vector<std::size_t> batch_sizes(const std::string& text) {
    std::vector<std::size_t> sizes;
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) sizes.push_back(apps::positive(part, "batch"));
    if (sizes.empty()) throw apps::UsageError("--batch: expected numbers with commas between, as in 1,8,32.");
    return sizes;
}

double positive_seconds(const std::string& text) {
    std::istringstream stream(text);
    double seconds = 0;
    if (!(stream >> seconds) || !stream.eof() || !(seconds > 0)) {
        throw apps::UsageError("--seconds '" + text + "': expected a positive number.");
    }
    return seconds;
}

void bench(int argc, char** argv) {
    std::string json, onnxruntime, tensorrt;
    std::vector<std::string> sources;
    std::vector<std::size_t> sizes = {1, 8, 32};
    double seconds = 3;
    reid_options options = reidruntime::default_options();
    const std::vector<std::string> arguments = apps::read_arguments(
        argc, argv,
        {{"batch", 0, [&](const std::string& text) { sizes = batch_sizes(text); }},
         {"seconds", 0, [&](const std::string& text) { seconds = positive_seconds(text); }},
         {"images", 0, [&](const std::string& text) { sources.push_back(text); }},
         {"threads", 0,
          [&](const std::string& text) { options.threads = static_cast<int>(apps::positive(text, "threads")); }},
         {"onnxruntime", 0, [&](const std::string& text) { onnxruntime = text; }},
         {"tensorrt", 0, [&](const std::string& text) { tensorrt = text; }},
         {"json", 0, [&](const std::string& text) { json = text; }}},
        kHelp);
    if (arguments.size() != 1) throw apps::UsageError("expected one ARTIFACT; see --help");
    if (!onnxruntime.empty()) options.onnxruntime_library = onnxruntime.c_str();
    if (!tensorrt.empty()) options.tensorrt_library = tensorrt.c_str();
    if (!json.empty()) apps::check_writable(json);
    const std::vector<std::string> paths = apps::find_images(sources);
    Json report = apps::new_record("bench");
    const reidruntime::Session session(arguments[0], options);
    report["artifact"] = arguments[0];
    report["session"] = session.description();
    for (const std::size_t size : sizes) report["batches"].push_back(time_batch(session, size, seconds));
    report["end_to_end"] =
        paths.empty() ? Json() : time_files(session, paths, *std::max_element(sizes.begin(), sizes.end()), seconds);
    report["warnings"] = warnings(report["machine"]);
    print(report);
    if (!json.empty()) apps::write_whole(json, report.dump(2) + "\n");
}

}  // namespace

int main(int argc, char** argv) {
    return apps::exit_status_of([&] { bench(argc, argv); });
}
