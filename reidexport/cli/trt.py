"""``reidexport trt``: checkpoint or ONNX → TensorRT engine."""

import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from reidruntime.artifact.manifest import (
    BatchProfile,
    Flavor,
    Manifest,
    Precision,
    engine_manifest_path,
)
from typer import Argument, Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import ForceOption, log
from reidexport.cli.shared_options import CheckpointOptions, ForeignOptions, PixelOptions
from reidexport.errors import InputError
from reidexport.files import check_replaceable

_native = partial(Option, rich_help_panel="Native TensorRT only")


@dataclass(frozen=True)
class EnginePrecision:
    """What the engine computes in, at most one of them."""

    fp16: Annotated[bool, Option("--fp16", help="An FP16 engine; converts an FP32 source to FP16.")] = False
    fp32: Annotated[bool, Option("--fp32", help="An FP32 engine, without TF32.")] = False
    int8: Annotated[
        bool, Option("--int8", help="An INT8 engine, from a file of onnx --int8 --target tensorrt.")
    ] = False

    def chosen(self) -> Precision | None:
        """The chosen one, or None for that of the source; raises InputError where more than one was chosen."""
        known: tuple[Precision, ...] = ("fp16", "fp32", "int8")
        given = [name for name in known if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"--{' and --'.join(given)} exclude each other")
        return given[0] if given else None


@dataclass(frozen=True)
class EngineOptions:
    """How TensorRT builds the engine."""

    batch_profile: Annotated[
        str | None,
        Option(
            metavar="MIN:OPT:MAX",
            help="Batch sizes; default: the file's own, or what suits the GPU (1:8:32 to 1:64:256).",
        ),
    ] = None
    flavor: Annotated[
        Flavor, Option(help="tensorrt: for this GPU. rtx: TensorRT for RTX, for RTX GPUs, built anywhere.")
    ] = "tensorrt"
    workspace_mib: Annotated[
        int | None, Option("--workspace", metavar="MIB", help="Limit of device memory for scratch.")
    ] = None
    optimization_level: Annotated[int | None, Option(metavar="0-5", help="Builder optimization level.")] = (
        None
    )
    strip_weights: Annotated[
        bool, Option("--strip-weights", help="An engine without weights; the ONNX file must stay beside it.")
    ] = False
    timing_cache: Annotated[
        Path | None, _native(help="File of the timing cache; default: one per GPU and version.")
    ] = None
    version_compatible: Annotated[
        bool, _native("--version-compatible", help="Later versions of TensorRT may load it.")
    ] = False
    hardware_compatible: Annotated[
        bool, _native("--hardware-compatible", help="Other GPUs from Ampere on may load it.")
    ] = False
    allow_unproved_precision: Annotated[
        bool,
        _native(
            "--allow-unproved-precision", help="Accept convolutions whose precision TensorRT does not report."
        ),
    ] = False


@with_option_groups
def trt(
    source: Annotated[
        Path | None, Argument(help="A checkpoint or an ONNX file; default: the one ONNX file of this folder.")
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            "-o",
            "--output",
            help="Where to write; default: the source's name and what is asked for, with .engine.",
        ),
    ] = None,
    *,
    force: ForceOption = False,
    precision: EnginePrecision,
    engine: EngineOptions,
    foreign: ForeignOptions,
    checkpoint: CheckpointOptions,
) -> None:
    """Build a TensorRT engine, and prove that it computes in the precision it is called by."""
    from reidruntime.tensorrt_library import import_tensorrt

    from reidexport.evaluation.opening import kind_of
    from reidexport.tensorrt.build import engine_from_onnx
    from reidexport.tensorrt.options import BuildOptions
    from reidexport.tensorrt.source import find_source, prepared_source

    chosen = precision.chosen()
    options = BuildOptions(**asdict(engine) | {"batch_profile": _parse_profile(engine.batch_profile)})
    source = source or find_source(Path())
    target = output or _default_output(source, chosen, engine.flavor)
    for path in (target, engine_manifest_path(target)):
        check_replaceable(path, force=force)
    import_tensorrt(engine.flavor)  # before the seconds that an export takes
    is_checkpoint = kind_of(source) == "checkpoint"
    manifest = None if is_checkpoint else foreign.manifest(source)
    if is_checkpoint:
        foreign.refuse_for_checkpoint(source)
    choices = checkpoint.choices(foreign if is_checkpoint else PixelOptions())
    with prepared_source(source, chosen, choices=choices, manifest=manifest, log=log) as prepared:
        built = engine_from_onnx(prepared, target, options=options, log=log)
    _print(target, built)


def _default_output(source: Path, precision: Precision | None, flavor: Flavor) -> Path:
    """``model.onnx`` becomes ``model.engine``, or ``model-fp16-rtx.engine``: what is asked for is in the name."""
    source = source if source.name else source.resolve()  # "." of a folder
    stem = source.name.removesuffix(source.suffix)
    if precision and not re.search(rf"\b{precision}\b", stem):
        stem += f"-{precision}"
    return source.with_name(stem + ("-rtx" if flavor == "rtx" else "") + ".engine")


def _print(target: Path, built: Manifest) -> None:
    engine, profile = built.engine, built.batch_profile
    if engine is None:
        raise InputError(f"{target}: its manifest does not describe an engine.")
    place = engine.gpu_name or "any RTX GPU"
    print(
        f"wrote {target} ({target.stat().st_size / 2**20:.1f} MiB, {built.precision}) and {target.name}.json"
    )
    print(f"  TensorRT {'for RTX ' if engine.flavor == 'rtx' else ''}{engine.tensorrt_version}, {place}")
    print(f"  batches {profile.minimum}:{profile.optimum}:{profile.maximum}")
    print(f"  layers of the network {_counts(engine.layers.network)}")
    if len(engine.layers.kinds) > 1:
        print("  by kind: " + "; ".join(f"{kind} {_counts(of)}" for kind, of in engine.layers.kinds.items()))
    if engine.layers.plan is not None:
        print(f"  layers of the engine {_counts(engine.layers.plan)}")
    else:
        print("  layers of the engine: an RTX engine is finished, and inspected, on the GPU that loads it")


def _counts(layers: dict[str, int]) -> str:
    return ", ".join(f"{number} {precision}" for precision, number in layers.items())


def _parse_profile(text: str | None) -> BatchProfile | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*:[1-9]\d*", text):
        raise InputError(f"--batch-profile {text!r}: expected MIN:OPT:MAX, each at least 1, as in 1:8:32")
    smallest, best, largest = map(int, text.split(":"))
    return BatchProfile(minimum=smallest, optimum=best, maximum=largest)
