// reid_stress ARTIFACT CALLS THREADS GOOD_IMAGE... -- BAD_IMAGE...: one session, called from many threads at once with files,
// pixels and images that cannot be read. Every answer must be that of the same image alone. Exit status 1 at the first wrong one.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>

#include "reidruntime/reidruntime.hpp"

namespace {

constexpr float kTolerance = 1e-5F;

struct Work {
    const reidruntime::Session& session;
    std::vector<std::string> good, bad;
    reidruntime::Features expected;  // of each good image alone
    std::atomic<int> calls_left;
    std::atomic<bool> failed = false;

    void fail(const std::string& what) {
        std::fprintf(stderr, "%s\n", what.c_str());
        failed = true;
    }
};

reid_image file(const std::string& path) { return reidruntime::image_from_file(path.c_str()); }

/// A few good images, which must answer as they do alone.
void embed_good(Work& work, std::mt19937& chance) {
    std::vector<std::size_t> chosen(1 + chance() % 7);
    std::generate(chosen.begin(), chosen.end(), [&] { return chance() % work.good.size(); });
    std::vector<reid_image> images;
    for (const std::size_t index : chosen) images.push_back(file(work.good[index]));
    const reidruntime::Features found = work.session.embed(std::span<const reid_image>(images), 1 + chance() % 4);
    for (std::size_t row = 0; row < chosen.size(); ++row) {
        const auto wanted = work.expected[chosen[row]];
        const bool same = std::equal(wanted.begin(), wanted.end(), found[row].begin(),
                                     [](float a, float b) { return std::abs(a - b) <= kTolerance; });
        if (!same) work.fail("an image answers differently in a batch, or beside other threads");
    }
}

/// Pixels of any size.
void embed_pixels(Work& work, std::mt19937& chance) {
    const std::size_t height = 1 + chance() % 40, width = 1 + chance() % 40;
    const std::vector<std::uint8_t> pixels(height * width * 3, static_cast<std::uint8_t>(chance()));
    const reid_image image = reidruntime::image_from_pixels(pixels.data(), height, width);
    (void)work.session.embed(std::span(&image, 1));
}

/// A bad image among good ones: its name must be in the message.
void embed_bad(Work& work, std::mt19937& chance) {
    const std::string& path = work.bad[chance() % work.bad.size()];
    const std::vector<reid_image> images = {file(work.good[0]), file(path), file(work.good[0])};
    std::vector<float> features(images.size() * work.session.feature_dim());
    const reid_status status = reid_embed(work.session.get(), images.data(), images.size(), 0, features.data());
    if (status != REID_ERROR_IMAGE || std::string(reid_last_error()).find(path) == std::string::npos) {
        work.fail(path + ": expected an error that names it, got: " + reid_last_error());
    }
}

void call(Work& work, unsigned seed) {
    std::mt19937 chance(seed);
    while (!work.failed && work.calls_left-- > 0) {
        switch (chance() % 4) {
            case 0: embed_bad(work, chance); break;
            case 1: embed_pixels(work, chance); break;
            default: embed_good(work, chance);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const auto separator = std::find(arguments.begin(), arguments.end(), "--");
    const reidruntime::Session session(arguments[0]);
    Work work{session, {arguments.begin() + 3, separator}, {separator + 1, arguments.end()}, {}, std::stoi(arguments[1])};
    work.expected.dim = session.feature_dim();
    for (const std::string& path : work.good) {
        const auto alone = session.embed(std::span(&path, 1));
        work.expected.values.insert(work.expected.values.end(), alone.values.begin(), alone.values.end());
    }
    std::vector<std::jthread> threads;
    for (int i = 0; i < std::stoi(arguments[2]); ++i) {
        threads.emplace_back([&work, i] { call(work, static_cast<unsigned>(i)); });
    }
    threads.clear();
    if (work.failed) return EXIT_FAILURE;
    std::printf("%s calls from %s threads\n", arguments[1].c_str(), arguments[2].c_str());
    return EXIT_SUCCESS;
}
