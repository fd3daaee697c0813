// A batch of images, read by several threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "preprocess.h"

namespace reid {

/// Threads that wait for batches to read. Any number of threads may call read() at once.
class ImageReader {
public:
    /// @param num_threads for one call, the calling one included.
    ImageReader(const Preprocess& preprocess, std::size_t num_threads)
        : preprocess_(preprocess), num_threads_(num_threads) {}

    /// Bring images to the manifest's size and channel order; of JPEG files, ordinary ones.
    ///
    /// @param out receives image_bytes() for each image.
    /// @returns what each image failed with: null where it is read.
    std::vector<std::exception_ptr> read(std::span<const reid_image> images, std::uint8_t* out);

private:
    struct Call {
        std::span<const reid_image> images;
        std::uint8_t* out;
        std::vector<std::exception_ptr> failures;
        std::atomic<std::size_t> next_image = 0;
        std::size_t num_helpers = 0;
    };

    void offer(Call& call);
    void help(const std::stop_token& token);
    void read_images(Call& call) const;

    Preprocess preprocess_;
    std::size_t num_threads_;
    std::mutex mutex_;
    std::deque<Call*> calls_;  // those that may have images left
    std::condition_variable_any has_work_;
    std::condition_variable is_done_;
    std::vector<std::jthread> helpers_;  // last: they stop before what they use is gone
};

}  // namespace reid
