#pragma once

#include <cstddef>

namespace reid {

/// As many as are wanted; for 0, the CPUs that this process may use.
///
/// @throws Error (input): `wanted` is negative.
std::size_t num_threads(int wanted);

}  // namespace reid
