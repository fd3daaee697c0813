"""The arithmetic peak of CPUs: loops of nothing but multiply-adds and a counter, in registers alone.

They are written in assembly, so that no compiler changes them. Sources: the "Intel Intrinsics Guide" for the
instructions, the "System V ABI" for AMD64 for the registers of arguments.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from time import perf_counter
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[Any]

# About 2 ms a burst: the threads' start is a hundredth of that, and other programs often leave all CPUs alone so long.
_ROUNDS = 1 << 19
_BURSTS = 50

# So many that none waits for another: two units, results after up to six cycles. AVX2 has 16 registers: four are left.
_SUMS = 12

_VNNI = "vpdpbusd {sum}, {left}, {right}"
_PAIRS = (
    "vpmaddubsw {pairs}, {left}, {right}; vpmaddwd {pairs}, {pairs}, {ones}; vpaddd {sum}, {sum}, {pairs}"
)

# By precision: the feature that a CPU must have, the bits of a register, and sum += left * right.
_MULTIPLY_ADDS = {
    "fp32": [
        ("avx512f", 512, "vfmadd231ps {sum}, {left}, {right}"),
        ("fma", 256, "vfmadd231ps {sum}, {left}, {right}"),
    ],
    "bf16": [("avx512bf16", 512, "vdpbf16ps {sum}, {left}, {right}")],
    "int8": [
        ("avx512vnni", 512, _VNNI),
        ("avxvnni", 256, "{{vex}} " + _VNNI),
        ("avx512bw", 512, _PAIRS),
        ("avx2", 256, _PAIRS),
    ],
}

# What is multiplied: its name, a one on the left, a one on the right, and the type of the sums. Products are summed in
# groups that fill 32 bits.
_NUMBERS = {
    "fp32": ("floats", np.float32(1), np.float32(1), np.float32),
    "bf16": ("bfloat16", np.uint16(0x3F80), np.uint16(0x3F80), np.float32),  # NumPy has none: the bits of 1.0
    "int8": ("bytes", np.uint8(1), np.int8(1), np.int32),
}

# These multiply whole tiles: where a CPU has them, its vectors are not its limit.
_TILES = {"bf16": "amx-bf16", "int8": "amx-int8"}

# multiply_adds(rounds: rdi, left: rsi, right: rdx, ones: rcx, sums: r8); at least one round.
_FUNCTION = """
.intel_syntax noprefix
.globl multiply_adds
multiply_adds:
vmovups {left}, [rsi]
vmovups {right}, [rdx]
vmovups {ones}, [rcx]
{zero_sums}
.p2align 6
again:
{multiply_adds}
dec rdi
jnz again
{store_sums}
vzeroupper
ret
.att_syntax
"""

_engines: list[llvm.ExecutionEngine] = []  # own the machine code


class Kernel(NamedTuple):
    """A loop of multiply-adds: ``run(rounds, left, right)`` returns the sums, and releases the interpreter lock."""

    name: str
    operations_per_round: int  # two for each multiply-add
    ones: tuple[Vector, Vector]  # left and right, of the length and types that `run` takes
    run: Callable[[int, Vector, Vector], Vector]


@cache
def kernels(precision: str) -> tuple[Kernel, ...]:
    """This CPU's multiply-adds of fp32, bf16 or int8; none where its limit is another one, or unknown here.

    The widest need not be the fastest: some CPUs have one unit of 512 bits and two of 256, or slow down for 512.
    """
    features = llvm.get_host_cpu_features()
    if sys.platform != "linux" or features.get(_TILES.get(precision)):
        return ()
    rows = _MULTIPLY_ADDS[precision]
    return tuple(_kernel(precision, bits, code) for feature, bits, code in rows if features.get(feature))


def gop_per_s(kernel: Kernel, num_threads: int) -> float:
    """The most that threads do at once, in 1e9 operations a second; the best of bursts of about 0.1 s in all."""
    barrier, cpus_here = Barrier(num_threads), os.sched_getaffinity(0)
    # A CPU for each thread, as the system may start several on one; fewer threads go where the system likes.
    places = [{cpu} for cpu in cpus_here] if num_threads == len(cpus_here) else [cpus_here] * num_threads

    def burst() -> tuple[float, float]:
        barrier.wait()
        start = perf_counter()
        kernel.run(_ROUNDS, *kernel.ones)
        return start, perf_counter()

    def bursts(cpus: set[int]) -> list[tuple[float, float]]:
        os.sched_setaffinity(0, cpus)  # 0: of this thread alone
        return [burst() for _ in range(_BURSTS)]

    with ThreadPoolExecutor(num_threads) as pool:
        times = np.array(list(pool.map(bursts, places)))
    seconds = times[..., 1].max(axis=0) - times[..., 0].min(axis=0)
    return float(1e-9 * num_threads * _ROUNDS * kernel.operations_per_round / seconds.min())


def _kernel(precision: str, bits: int, code: str) -> Kernel:
    numbers, left_one, right_one, type_of_sums = _NUMBERS[precision]
    size = bits // 8 // left_one.itemsize
    function = _assembled(_assembly(bits, code))
    pair_ones = np.ones(bits // 16, np.int16)

    def run(rounds: int, left: Vector, right: Vector) -> Vector:
        sums = np.empty((_SUMS, bits // 32), type_of_sums)
        function(rounds, *(array.ctypes.data for array in (left, right, pair_ones, sums)))
        return sums

    names = ", ".join(instruction.split()[-4] for instruction in code.split("; "))  # three operands follow
    ones = np.repeat(left_one, size), np.repeat(right_one, size)
    return Kernel(f"{names} of {size} {numbers}", 2 * _SUMS * size, ones, run)


def _assembly(bits: int, code: str) -> str:
    letter = {256: "y", 512: "z"}[bits]
    sums = [f"{letter}mm{n}" for n in range(_SUMS)]
    others = {name: f"{letter}mm{_SUMS + n}" for n, name in enumerate(("left", "right", "ones", "pairs"))}
    return _FUNCTION.format(
        zero_sums="\n".join(f"vxorps xmm{n}, xmm{n}, xmm{n}" for n in range(_SUMS)),
        multiply_adds="\n".join(code.format(sum=sum_, **others) for sum_ in sums),
        store_sums="\n".join(f"vmovups [r8 + {n * bits // 8}], {sum_}" for n, sum_ in enumerate(sums)),
        **others,
    )


def _assembled(assembly: str) -> Callable[..., None]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmparser()
    llvm.initialize_native_asmprinter()
    lines = "\n".join(f'module asm "{line}"' for line in assembly.splitlines())
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten()
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(lines), target)
    engine.finalize_object()
    _engines.append(engine)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 4)  # releases the interpreter lock
    return kind(engine.get_function_address("multiply_adds"))
