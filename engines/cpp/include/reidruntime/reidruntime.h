/* reidruntime: person images in, embeddings out.
 *
 * An artifact is an ONNX file or a TensorRT engine that `reidexport` wrote, with its manifest. Opening it checks the
 * manifest against the file and this machine; embedding decodes, resizes and normalizes as the manifest says, bit-equal to
 * the Python runtime.
 *
 * Every function that can fail returns a reid_status and leaves a sentence in reid_last_error(): what failed, what was
 * expected, what to do. No exception leaves the library.
 *
 * Threads: any number of threads may use one session or reader at once. Close it only after their last call has returned.
 */
#ifndef REIDRUNTIME_H
#define REIDRUNTIME_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define REID_API __attribute__((visibility("default")))
#else
#define REID_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What became of a call. */
typedef enum reid_status {
    REID_OK = 0,
    REID_ERROR_INPUT = 1,         /* an argument is not what the call needs */
    REID_ERROR_ARTIFACT = 2,      /* the artifact or its manifest is unreadable, wrong, or not for this machine */
    REID_ERROR_IMAGE = 3,         /* an image cannot be read */
    REID_ERROR_NOT_INSTALLED = 4, /* a library or a GPU is missing */
    REID_ERROR_RUN = 5            /* the network or the machine failed, usually for lack of memory */
} reid_status;

/* An opened artifact. */
typedef struct reid_session reid_session;

/* How to open an artifact. Zero everything, set `size`, then what should differ from the default:
 *     reid_options options = {.size = sizeof(reid_options)};
 */
typedef struct reid_options {
    size_t size; /* sizeof(reid_options): later versions append fields */
    int threads; /* for the network, and as many again for reading images; 0: the CPUs that this process may use */
    /* Path of libonnxruntime.so (1.21 or later). NULL: the environment's REIDRUNTIME_ONNXRUNTIME, then the loader's search
     * for libonnxruntime.so and libonnxruntime.so.1. */
    const char* onnxruntime_library;
    /* Path of libnvinfer.so of the major version that the library was compiled for. NULL: the environment's
     * REIDRUNTIME_TENSORRT, then the loader's search. */
    const char* tensorrt_library;
    /* 1 opens version-compatible engines too: they hold host code, which runs when the engine is loaded. */
    int allow_host_code;
    int bgr_pixels; /* the order of reid_image.pixels: 0: RGB; 1: BGR, as OpenCV keeps them. Files have their own. */
    /* Path of a camera profile of the artifact, NAME.cameras.json, that `reidexport adapt` wrote: features are
     * standardized by the camera of each image. NULL: none. */
    const char* cameras;
    /* An image of a camera that the profile does not have, or whose camera is not known: 0: is refused; 1: gets the
     * statistics of all crops that the profile was measured on. */
    int unknown_camera_mean;
} reid_options;

/* One image: a JPEG file, its bytes in memory, or pixels. Zero everything, then set one of the three, and the camera
 * where a camera profile is in use. */
typedef struct reid_image {
    const char* path;      /* a JPEG file */
    const uint8_t* pixels; /* RGB, or BGR where the options say so; row by row */
    size_t height_px;
    size_t width_px;
    size_t row_bytes;    /* from the start of a row to the next one's; 0: 3 * width_px */
    const uint8_t* jpeg; /* the bytes of a JPEG file */
    size_t jpeg_bytes;
    /* The camera that took it, for a camera profile; nothing else looks at it. From 1, as in names of files
     * (0002_c1s1.jpg), where Python's camid is from 0. 0: not known. */
    size_t camera;
} reid_image;

/* Reads images without an artifact, for programs that run the network themselves. */
typedef struct reid_reader reid_reader;

/* What a reader makes of an image. Zero everything, set `size`, height and width, then what should differ from the
 * default. */
typedef struct reid_reader_options {
    size_t size; /* sizeof(reid_reader_options): later versions append fields */
    size_t height_px;
    size_t width_px;
    int bicubic; /* 0: bilinear */
    int bgr;     /* 0: RGB */
    int threads; /* for one call, the calling one included; 0: the CPUs that this process may use */
    int bgr_pixels; /* the order of reid_image.pixels, as in reid_options; `bgr` is that of the result */
} reid_reader_options;

/* Open an artifact.
 *
 * artifact  path of a .onnx file, or of a .engine or .plan file with its manifest beside it (NAME.engine.json).
 * options   NULL: the defaults.
 * session   receives the session, or NULL when the call fails.
 *
 * REID_ERROR_ARTIFACT, REID_ERROR_NOT_INSTALLED or REID_ERROR_INPUT. Nothing else is used in place of what is missing.
 */
REID_API reid_status reid_open(const char* artifact, const reid_options* options, reid_session** session);

/* Embed images: files and pixels of any size, in any mixture. Threads read the next images while the network answers.
 *
 * images      num_images of them; may be NULL if num_images is 0.
 * batch_size  images per run of the network; 0: the artifact's optimum, or 32.
 * features    receives num_images * reid_feature_dim() floats; row i belongs to image i. Undefined after an error.
 *             Rows are not of unit length, unless the artifact was exported with --normalize.
 *
 * REID_ERROR_IMAGE names the first image that cannot be read; REID_ERROR_INPUT, before anything is embedded, the first
 * one of a camera that a camera profile does not have; REID_ERROR_RUN.
 */
REID_API reid_status reid_embed(reid_session* session, const reid_image* images, size_t num_images,
                                size_t batch_size, float* features);

/* Answer pixels that already have the artifact's size and channel order, without preparing anything.
 *
 * pixels    uint8, num_images x height_px x width_px x 3, without gaps; any num_images: they are split and padded as the
 *           artifact's batch profile needs.
 * features  receives num_images * reid_feature_dim() floats.
 *
 * With a camera profile that needs the cameras of images, REID_ERROR_INPUT: call reid_embed(), which does not resize
 * pixels that have the artifact's size. With unknown_camera_mean, or with a profile without cameras, all images get the
 * statistics of all crops.
 *
 * REID_ERROR_INPUT or REID_ERROR_RUN.
 */
REID_API reid_status reid_run(reid_session* session, const uint8_t* pixels, size_t num_images, float* features);

/* Free everything. NULL is allowed. */
REID_API void reid_close(reid_session* session);

/* Make a reader.
 *
 * reader  receives the reader, or NULL when the call fails.
 *
 * REID_ERROR_INPUT.
 */
REID_API reid_status reid_open_reader(const reid_reader_options* options, reid_reader** reader);

/* Read a batch: files, their bytes and pixels of any size, in any mixture, bit-equal to the Python runtime.
 *
 * Of JPEG files the reader accepts ordinary ones: color or gray, without a flaw, at most 2^25 pixels. The caller may have
 * other ways to read the rest.
 *
 * images    num_images of them; may be NULL if num_images is 0.
 * pixels    receives num_images * height_px * width_px * 3 bytes; image i becomes the i-th height_px x width_px x 3 of
 *           them, undefined where it cannot be read. Page-locked memory will do, too.
 * statuses  receives num_images of them: REID_OK, REID_ERROR_IMAGE for an image that the reader does not take, or
 *           REID_ERROR_RUN where memory is short.
 *
 * REID_OK if all are read; REID_ERROR_IMAGE if some are not: `statuses` says which, reid_last_error() why the first is not.
 * REID_ERROR_INPUT or REID_ERROR_RUN if none was tried: then `statuses` is left as it was.
 *
 * The reader's threads start with the first call that needs them, and have the priority of the thread that makes it.
 */
REID_API reid_status reid_read(reid_reader* reader, const reid_image* images, size_t num_images, uint8_t* pixels,
                               reid_status* statuses);

/* Free everything. NULL is allowed. */
REID_API void reid_close_reader(reid_reader* reader);

/* What the last failed call of this thread complained about; "" if none failed. Valid until the thread's next failure. */
REID_API const char* reid_last_error(void);

/* "0.2.0" */
REID_API const char* reid_version(void);

/* Facts about an open artifact. Strings live as long as the session. */
REID_API size_t reid_feature_dim(const reid_session* session); /* floats per embedding */
REID_API size_t reid_height_px(const reid_session* session);
REID_API size_t reid_width_px(const reid_session* session);
REID_API const char* reid_metric(const reid_session* session);    /* "cosine" or "euclidean" */
REID_API const char* reid_precision(const reid_session* session); /* "fp32", "fp16" or "int8" */
REID_API const char* reid_manifest_json(const reid_session* session);
/* One line for people: backend and version, device, precision, decoder. */
REID_API const char* reid_description(const reid_session* session);

#ifdef __cplusplus
}
#endif

#endif
