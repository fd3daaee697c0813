// The C API: the one place where exceptions become statuses and messages.
#include <cstring>
#include <exception>
#include <initializer_list>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "error.h"
#include "image_reader.h"
#include "session.h"
#include "threads.h"

struct reid_session {
    reid::Session session;
};

struct reid_reader {
    reid::ImageReader reader;
};

namespace {

thread_local std::string last_error;

/// Keep a message; without memory for it, none.
void remember(const char* message) noexcept {
    try {
        last_error = message;
    } catch (...) {
        last_error.clear();
    }
}

template <typename Call>
reid_status guarded(Call call) noexcept {
    try {
        call();
        return REID_OK;
    } catch (const reid::Error& error) {
        remember(error.what());
        return error.status;
    } catch (const std::bad_alloc&) {
        remember("out of memory. Try a smaller batch.");
        return REID_ERROR_RUN;
    } catch (const std::exception& error) {
        remember(error.what());
        return REID_ERROR_RUN;
    } catch (...) {
        remember("unknown failure");
        return REID_ERROR_RUN;
    }
}

template <typename Pointer>
void need(Pointer pointer, const char* what) {
    if (pointer == nullptr) reid::fail_input(std::string(what) + " must not be NULL.");
}

/// Whether there are images; then all that a call needs beside its handle is checked.
bool has_images(size_t num_images, std::initializer_list<std::pair<const void*, const char*>> needed) {
    if (num_images == 0) return false;
    for (const auto& [pointer, what] : needed) need(pointer, what);
    return true;
}

/// The caller's options, whose struct may be an older, shorter one.
template <typename Options>
Options known(const Options* options, const std::string& type) {
    Options result{};
    result.size = sizeof result;
    if (options == nullptr) return result;
    if (options->size < sizeof options->size || options->size > sizeof result) {
        reid::fail_input(type + ".size is " + std::to_string(options->size) + ", expected sizeof(" + type + "), " +
                         std::to_string(sizeof result) + " in reidruntime " + reid_version() + ", or less.");
    }
    std::memcpy(&result, options, options->size);
    return result;
}

/// What a reader is to make of an image; normalizing is not its part.
reid::Preprocess target(const reid_reader_options& options) {
    if (!reid::is_side(options.height_px) || !reid::is_side(options.width_px)) {
        reid::fail_input("reid_reader_options: expected height_px and width_px of 1 to " +
                         std::to_string(reid::kMaxSidePx) + ", got " + std::to_string(options.height_px) + " and " +
                         std::to_string(options.width_px) + ".");
    }
    reid::Preprocess preprocess{};
    preprocess.height_px = options.height_px;
    preprocess.width_px = options.width_px;
    preprocess.bicubic = options.bicubic != 0;
    preprocess.bgr = options.bgr != 0;
    preprocess.bgr_pixels = options.bgr_pixels != 0;
    return preprocess;
}

}  // namespace

reid_status reid_open(const char* artifact, const reid_options* options, reid_session** session) {
    return guarded([&] {
        need(session, "session");
        *session = nullptr;
        need(artifact, "artifact");
        *session = new reid_session{reid::Session(artifact, known(options, "reid_options"))};
    });
}

reid_status reid_embed(reid_session* session, const reid_image* images, size_t num_images, size_t batch_size,
                       float* features) {
    return guarded([&] {
        need(session, "session");
        if (!has_images(num_images, {{images, "images"}, {features, "features"}})) return;
        session->session.embed({images, num_images}, batch_size, features);
    });
}

reid_status reid_run(reid_session* session, const uint8_t* pixels, size_t num_images, float* features) {
    return guarded([&] {
        need(session, "session");
        if (!has_images(num_images, {{pixels, "pixels"}, {features, "features"}})) return;
        session->session.run({pixels, num_images * reid_height_px(session) * reid_width_px(session) * 3}, features);
    });
}

void reid_close(reid_session* session) { delete session; }

reid_status reid_open_reader(const reid_reader_options* options, reid_reader** reader) {
    return guarded([&] {
        need(reader, "reader");
        *reader = nullptr;
        need(options, "options");
        const reid_reader_options wanted = known(options, "reid_reader_options");
        *reader = new reid_reader{{target(wanted), reid::num_threads(wanted.threads)}};
    });
}

reid_status reid_read(reid_reader* reader, const reid_image* images, size_t num_images, uint8_t* pixels,
                      reid_status* statuses) {
    return guarded([&] {
        need(reader, "reader");
        if (!has_images(num_images, {{images, "images"}, {pixels, "pixels"}, {statuses, "statuses"}})) return;
        std::optional<std::string> why_not;  // of the first that is not read
        for (const std::exception_ptr& failure : reader->reader.read({images, num_images}, pixels)) {
            *statuses++ = failure ? guarded([&] { std::rethrow_exception(failure); }) : REID_OK;
            if (failure && !why_not) why_not = last_error;
        }
        if (why_not) reid::fail_image(*why_not);
    });
}

void reid_close_reader(reid_reader* reader) { delete reader; }

const char* reid_last_error(void) { return last_error.c_str(); }

const char* reid_version(void) { return REIDRUNTIME_VERSION; }

size_t reid_feature_dim(const reid_session* session) { return session->session.manifest().feature_dim; }

size_t reid_height_px(const reid_session* session) { return session->session.manifest().preprocess.height_px; }

size_t reid_width_px(const reid_session* session) { return session->session.manifest().preprocess.width_px; }

const char* reid_metric(const reid_session* session) { return session->session.manifest().metric.c_str(); }

const char* reid_precision(const reid_session* session) { return session->session.manifest().precision.c_str(); }

const char* reid_manifest_json(const reid_session* session) { return session->session.manifest().json.c_str(); }

const char* reid_description(const reid_session* session) { return session->session.description().c_str(); }
