// Images read by threads while the network answers earlier ones.
#pragma once

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "preprocess.h"

namespace reid {

/// Prepares batch after batch in order, a few ahead of the one that is asked for.
class BatchReader {
public:
    /// Start reading. `images` and `preprocess` must outlive the reader.
    BatchReader(std::span<const reid_image> images, std::size_t batch_size, const Preprocess& preprocess,
                std::size_t num_threads);

    /// Read on until the next batch is whole; its memory is overwritten from the next call on. Empty after the last.
    ///
    /// @throws Error (image): that of the batch's first image that cannot be read.
    std::span<const std::uint8_t> next();

private:
    struct Slot {
        std::unique_ptr<std::uint8_t[]> pixels;
        std::size_t num_missing = 0;
        std::size_t failed_index = 0;
        std::exception_ptr failure;
    };

    std::size_t images_in(std::size_t batch) const;
    void reset(Slot& slot, std::size_t batch) const;
    void read(const std::stop_token& token);
    void read_one(std::unique_lock<std::mutex>& lock);

    std::span<const reid_image> images_;
    std::size_t batch_size_;
    const Preprocess& preprocess_;
    std::size_t next_image_ = 0;  // to be read
    std::size_t next_batch_ = 0;  // to be handed out
    std::vector<Slot> slots_;
    std::mutex mutex_;
    std::condition_variable_any may_read_;
    std::condition_variable is_ready_;
    std::vector<std::jthread> threads_;  // last: they stop before what they use is gone
};

}  // namespace reid
