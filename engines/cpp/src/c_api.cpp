// The C API: the one place where exceptions become statuses and messages.
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "error.h"
#include "session.h"

struct reid_session {
    reid::Session session;
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

/// The caller's options, whose struct may be an older, shorter one.
reid_options known(const reid_options* options) {
    reid_options result{};
    result.size = sizeof result;
    if (options == nullptr) return result;
    if (options->size < sizeof options->size || options->size > sizeof result) {
        reid::fail_input("reid_options.size is " + std::to_string(options->size) + ", expected sizeof(reid_options), " +
                         std::to_string(sizeof result) + " in reidruntime " + reid_version() + ", or less.");
    }
    std::memcpy(&result, options, options->size);
    return result;
}

}  // namespace

reid_status reid_open(const char* artifact, const reid_options* options, reid_session** session) {
    return guarded([&] {
        need(session, "session");
        *session = nullptr;
        need(artifact, "artifact");
        *session = new reid_session{reid::Session(artifact, known(options))};
    });
}

reid_status reid_embed(reid_session* session, const reid_image* images, size_t num_images, size_t batch_size,
                       float* features) {
    return guarded([&] {
        need(session, "session");
        if (num_images == 0) return;
        need(images, "images");
        need(features, "features");
        session->session.embed({images, num_images}, batch_size, features);
    });
}

reid_status reid_run(reid_session* session, const uint8_t* pixels, size_t num_images, float* features) {
    return guarded([&] {
        need(session, "session");
        if (num_images == 0) return;
        need(pixels, "pixels");
        need(features, "features");
        session->session.run({pixels, num_images * reid_height_px(session) * reid_width_px(session) * 3}, features);
    });
}

void reid_close(reid_session* session) { delete session; }

const char* reid_last_error(void) { return last_error.c_str(); }

const char* reid_version(void) { return REIDRUNTIME_VERSION; }

size_t reid_feature_dim(const reid_session* session) { return session->session.manifest().feature_dim; }

size_t reid_height_px(const reid_session* session) { return session->session.manifest().preprocess.height_px; }

size_t reid_width_px(const reid_session* session) { return session->session.manifest().preprocess.width_px; }

const char* reid_metric(const reid_session* session) { return session->session.manifest().metric.c_str(); }

const char* reid_precision(const reid_session* session) { return session->session.manifest().precision.c_str(); }

const char* reid_manifest_json(const reid_session* session) { return session->session.manifest().json.c_str(); }

const char* reid_description(const reid_session* session) { return session->session.description().c_str(); }
