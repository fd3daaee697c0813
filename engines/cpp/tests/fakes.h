// What the tests ask of the stand-ins for NVIDIA's driver and libnvinfer, beside the real functions.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <functional>

/// Put work into a stream, to be done when the stream is waited for; the wait returns what the work returns.
CUresult fake_enqueue(CUstream stream, std::function<CUresult()> work);

/// How many streams had work in them at once, at most, since the last call.
std::size_t fake_most_busy_streams();

/// Pieces of memory that are in use, of the GPU and page-locked.
int fake_allocations();

/// How many there may be at most; -1: any number.
void fake_limit_allocations(int limit);
