#include "threads.h"

#include <sched.h>

#include <algorithm>
#include <string>
#include <thread>

#include "error.h"

namespace reid {

std::size_t num_threads(int wanted) {
    if (wanted < 0) fail_input("threads must be at least 1, got " + std::to_string(wanted) + ".");
    if (wanted > 0) return static_cast<std::size_t>(wanted);
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return static_cast<std::size_t>(CPU_COUNT(&allowed));
    return std::max(std::thread::hardware_concurrency(), 1U);
}

}  // namespace reid
