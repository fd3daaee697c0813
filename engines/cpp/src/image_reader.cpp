#include "image_reader.h"

namespace reid {

std::vector<std::exception_ptr> ImageReader::read(std::span<const reid_image> images, std::uint8_t* out) {
    Call call{images, out, std::vector<std::exception_ptr>(images.size())};
    if (num_threads_ > 1 && images.size() > 1) offer(call);
    read_images(call);
    std::unique_lock lock(mutex_);
    std::erase(calls_, &call);
    is_done_.wait(lock, [&] { return call.num_helpers == 0; });
    return std::move(call.failures);
}

void ImageReader::offer(Call& call) {
    const std::lock_guard lock(mutex_);
    while (helpers_.size() + 1 < num_threads_) {
        helpers_.emplace_back([this](const std::stop_token& token) { help(token); });
    }
    calls_.push_back(&call);
    has_work_.notify_all();
}

void ImageReader::help(const std::stop_token& token) {
    std::unique_lock lock(mutex_);
    while (has_work_.wait(lock, token, [this] { return !calls_.empty(); })) {
        Call& call = *calls_.front();
        ++call.num_helpers;
        lock.unlock();
        read_images(call);
        lock.lock();
        std::erase(calls_, &call);
        if (--call.num_helpers == 0) is_done_.notify_all();
    }
}

void ImageReader::read_images(Call& call) const {
    for (std::size_t i = call.next_image++; i < call.images.size(); i = call.next_image++) {
        try {
            prepare_image(call.images[i], i, preprocess_, call.out + i * image_bytes(preprocess_), Jpegs::kOrdinary);
        } catch (...) {
            call.failures[i] = std::current_exception();
        }
    }
}

}  // namespace reid
