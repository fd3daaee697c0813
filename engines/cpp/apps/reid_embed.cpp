// reid_embed: image files in, one .npy file of embeddings out.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <iterator>
#include <sstream>

#include "command.h"

namespace {

const char* const kHelp =
    "Usage: reid_embed ARTIFACT PATH... -o FILE.npy [OPTION...]\n"
    "\n"
    "Embed JPEG files into a .npy file: float32, one row per image, in the order of the paths. A folder is searched deeply, in\n"
    "order of name.\n"
    "\n"
    "  -o, --output FILE     the file to write\n"
    "      --force           replace FILE, if it exists\n"
    "      --batch N         images per run of the network; default: the artifact's optimum, or 32\n"
    "      --threads N       for the network, and as many again for reading; default: all CPUs of this process\n"
    "      --cameras FILE    camera profile of ARTIFACT, NAME.cameras.json: features are standardized by the camera of\n"
    "                        each image, which its name tells: <pid>_c<camera>..., such as 0002_c1s1.jpg\n"
    "      --unknown-camera refuse|mean\n"
    "                        what to do with images of other cameras: refuse them (default), or take the mean of all\n"
    "      --onnxruntime LIB path of libonnxruntime.so\n"
    "      --tensorrt LIB    path of libnvinfer.so\n"
    "\n"
    "Exit status: 0 done, 2 bad input or usage, 3 something is not installed or the machine failed.\n";

/// A two-dimensional float32 array in numpy's format, version 1.0.
std::string npy(const reidruntime::Features& features) {
    constexpr std::size_t kAlignment = 64;
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(features.rows()) + ", " +
                         std::to_string(features.dim) + "), }";
    std::string content("\x93NUMPY\x01\x00", 8);
    const std::size_t unpadded = content.size() + 2 + header.size() + 1;
    header.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ').append("\n");
    content += static_cast<char>(header.size() % 256);
    content += static_cast<char>(header.size() / 256);
    content += header;
    content.append(reinterpret_cast<const char*>(features.values.data()), features.values.size() * sizeof(float));
    return content;
}

bool takes_mean(const std::string& text) {
    if (text != "refuse" && text != "mean") {
        throw apps::UsageError("--unknown-camera '" + text + "': expected refuse or mean.");
    }
    return text == "mean";
}

void embed(int argc, char** argv) {
    std::string output, cameras, onnxruntime, tensorrt;
    std::size_t batch = 0;
    bool force = false;
    reid_options options = reidruntime::default_options();
    const std::vector<std::string> arguments = apps::read_arguments(
        argc, argv,
        {{"output", 'o', [&](const std::string& text) { output = text; }},
         {"force", 0, [&](const std::string&) { force = true; }, false},
         {"batch", 0, [&](const std::string& text) { batch = apps::positive(text, "batch"); }},
         {"threads", 0,
          [&](const std::string& text) { options.threads = static_cast<int>(apps::positive(text, "threads")); }},
         {"cameras", 0, [&](const std::string& text) { cameras = text; }},
         {"unknown-camera", 0, [&](const std::string& text) { options.unknown_camera_mean = takes_mean(text); }},
         {"onnxruntime", 0, [&](const std::string& text) { onnxruntime = text; }},
         {"tensorrt", 0, [&](const std::string& text) { tensorrt = text; }}},
        kHelp);
    if (arguments.size() < 2 || output.empty()) {
        throw apps::UsageError("expected ARTIFACT PATH... -o FILE.npy; see --help");
    }
    if (!cameras.empty()) options.cameras = cameras.c_str();
    if (!onnxruntime.empty()) options.onnxruntime_library = onnxruntime.c_str();
    if (!tensorrt.empty()) options.tensorrt_library = tensorrt.c_str();
    apps::check_writable(output);
    apps::check_replaceable(output, force);
    const std::vector<std::string> paths = apps::find_images({arguments.begin() + 1, arguments.end()});
    std::vector<std::size_t> camera_of_each(cameras.empty() ? 0 : paths.size());
    std::transform(paths.begin(), paths.begin() + std::ssize(camera_of_each), camera_of_each.begin(), apps::camera_of);
    const reidruntime::Session session(arguments[0], options);
    std::cerr << session.description() << '\n';
    const auto began = std::chrono::steady_clock::now();
    const reidruntime::Features features = session.embed(paths, batch, camera_of_each);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - began;
    apps::write_whole(output, npy(features));
    std::cout << output << ": " << paths.size() << " embeddings, "
              << static_cast<int>(static_cast<double>(paths.size()) / seconds.count()) << " images/s\n";
}

}  // namespace

int main(int argc, char** argv) {
    return apps::exit_status_of([&] { embed(argc, argv); });
}
