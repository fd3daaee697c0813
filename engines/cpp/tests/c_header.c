/* The public header compiles as C, and an application can be written in it. */
#include "reidruntime/reidruntime.h"

reid_status embed_one(const char* artifact, const char* path, float* features);

reid_status embed_one(const char* artifact, const char* path, float* features) {
    reid_options options = {sizeof(reid_options), 0, NULL, NULL, 0};
    reid_image image = {path, NULL, 0, 0, 0};
    reid_session* session = NULL;
    reid_status status = reid_open(artifact, &options, &session);
    if (status == REID_OK) status = reid_embed(session, &image, 1, 0, features);
    reid_close(session);
    return status;
}
