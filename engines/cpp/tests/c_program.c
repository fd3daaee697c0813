/* An application in C: embeds one JPEG file and prints the squared length of its embedding. */
#include <stdio.h>
#include <stdlib.h>

#include "reidruntime/reidruntime.h"

static int fail(void) {
    fprintf(stderr, "error: %s\n", reid_last_error());
    return EXIT_FAILURE;
}

int main(int argc, char** argv) {
    reid_options options = {.size = sizeof(reid_options)};
    reid_session* session = NULL;
    reid_image image = {.path = argc == 3 ? argv[2] : NULL};
    float* features = NULL;
    double squares = 0;
    size_t i = 0;

    if (argc != 3) return EXIT_FAILURE;
    if (reid_open(argv[1], &options, &session) != REID_OK) return fail();
    features = malloc(reid_feature_dim(session) * sizeof(float));
    if (features == NULL || reid_embed(session, &image, 1, 0, features) != REID_OK) return fail();
    for (i = 0; i < reid_feature_dim(session); ++i) squares += (double)features[i] * features[i];
    printf("%.9g\n", squares);
    free(features);
    reid_close(session);
    return EXIT_SUCCESS;
}
