#include "reader.h"

#include <sys/resource.h>

#include <algorithm>

namespace reid {
namespace {

// One that the network computes, one ready, one being read.
constexpr std::size_t kNumSlots = 3;
constexpr int kNiceness = 10;

/// A network's threads wait for each other at every layer: one that a reading thread keeps from its core keeps all of them
/// waiting. On Linux a priority belongs to a thread.
void let_the_network_go_first() { setpriority(PRIO_PROCESS, 0, kNiceness); }

}  // namespace

BatchReader::BatchReader(std::span<const reid_image> images, std::size_t batch_size, const Preprocess& preprocess,
                         std::size_t num_threads)
    : images_(images), batch_size_(batch_size), preprocess_(preprocess) {
    const std::size_t num_batches = (images.size() + batch_size - 1) / batch_size;
    slots_.resize(std::min(kNumSlots, num_batches));
    for (std::size_t batch = 0; batch < slots_.size(); ++batch) {
        slots_[batch].pixels = std::make_unique_for_overwrite<std::uint8_t[]>(images_in(batch) * image_bytes(preprocess));
        reset(slots_[batch], batch);
    }
    // Of a single batch nothing can be read while the network answers, and who asks for it reads as well.
    const std::size_t num_helpers = std::min(num_threads, images.size()) - (num_batches == 1 ? 1 : 0);
    for (std::size_t i = 0; i < num_helpers; ++i) {
        threads_.emplace_back([this](const std::stop_token& token) { read(token); });
    }
}

std::span<const std::uint8_t> BatchReader::next() {
    std::unique_lock lock(mutex_);
    if (next_batch_ > 0) {  // the batch before has been started, and no longer needs its memory: read another into it
        const std::size_t done = next_batch_ - 1;
        reset(slots_[done % slots_.size()], done + slots_.size());
        may_read_.notify_all();
    }
    const std::size_t batch = next_batch_++;
    const std::size_t size = images_in(batch);
    if (size == 0) return {};
    // Rather than wait for a thread to wake up.
    while (next_image_ < images_.size() && next_image_ / batch_size_ == batch) read_one(lock);
    Slot& slot = slots_[batch % slots_.size()];
    is_ready_.wait(lock, [&] { return slot.num_missing == 0; });
    if (slot.failure) std::rethrow_exception(slot.failure);
    return {slot.pixels.get(), size * image_bytes(preprocess_)};
}

std::size_t BatchReader::images_in(std::size_t batch) const {
    const std::size_t start = std::min(batch * batch_size_, images_.size());
    return std::min(batch_size_, images_.size() - start);
}

void BatchReader::reset(Slot& slot, std::size_t batch) const {
    slot.num_missing = images_in(batch);
    slot.failure = nullptr;
}

void BatchReader::read(const std::stop_token& token) {
    if (images_.size() > batch_size_) let_the_network_go_first();
    std::unique_lock lock(mutex_);
    while (true) {
        const bool may_read = may_read_.wait(lock, token, [&] {
            const std::size_t first_kept = next_batch_ == 0 ? 0 : next_batch_ - 1;
            return next_image_ == images_.size() || next_image_ / batch_size_ < first_kept + slots_.size();
        });
        if (!may_read || next_image_ == images_.size()) return;
        read_one(lock);
    }
}

void BatchReader::read_one(std::unique_lock<std::mutex>& lock) {
    const std::size_t index = next_image_++;
    lock.unlock();
    Slot& slot = slots_[index / batch_size_ % slots_.size()];
    std::exception_ptr failure;
    try {
        prepare_image(images_[index], index, preprocess_,
                      slot.pixels.get() + index % batch_size_ * image_bytes(preprocess_));
    } catch (...) {
        failure = std::current_exception();
    }
    lock.lock();
    if (failure && (!slot.failure || index < slot.failed_index)) {
        slot.failure = failure;
        slot.failed_index = index;
    }
    if (--slot.num_missing == 0) is_ready_.notify_one();
}

}  // namespace reid
