"""``reidexport onnx``: checkpoint → ONNX."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from reidruntime.artifact.manifest import Feature, Manifest, Precision, QuantizationTarget
from typer import Argument, Option

from reidexport.cli.evidence import EvidenceOptions, assumed_text, check_strict, exit_where_strict, tested
from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import ForceOption, log
from reidexport.cli.shared_options import CheckpointOptions, PixelOptions
from reidexport.data import load_dataset
from reidexport.errors import InputError
from reidexport.files import check_replaceable


@dataclass(frozen=True)
class GraphChoices:
    """What the exported network takes and emits."""

    feature: Annotated[
        Feature | None,
        Option(help="Feature behind (f_i) or before (f_t) the neck; default: what its project publishes."),
    ] = None
    normalize: Annotated[bool, Option("--normalize", help="Make every feature unit length.")] = False
    flip: Annotated[bool, Option("--flip", help="Average the features of the image and its mirror.")] = False
    input: Annotated[
        Literal["uint8", "float32"],
        Option(help="uint8: raw RGB pixels, NHWC. float32: normalized images, NCHW."),
    ] = "uint8"


@dataclass(frozen=True)
class PrecisionOptions:
    """What a network computes in."""

    fp16: Annotated[
        bool, Option("--fp16/--fp32", help="Convert the convolutions to FP16, or keep all in FP32.")
    ] = False
    int8: Annotated[bool, Option("--int8", help="Quantize the convolutions.")] = False
    target: Annotated[
        QuantizationTarget | None, Option(help="For --int8: what will run the file; cpu if left out.")
    ] = None

    def chosen(self) -> Precision:
        """The chosen precision; raises InputError where the options exclude each other."""
        if self.fp16 and self.int8:
            raise InputError("--fp16 and --int8 exclude each other")
        if self.target and not self.int8:
            raise InputError("--target is for --int8")
        return "int8" if self.int8 else "fp16" if self.fp16 else "fp32"


@dataclass(frozen=True)
class CalibrationOptions:
    """What an INT8 network is calibrated with, and measured on."""

    calibration: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="For --int8, which needs it: a folder of real images, or a data set, whose train split is used.",
        ),
    ] = None
    data: Annotated[
        Path | None,
        Option(
            metavar="ROOT",
            help="For --int8: the data set to measure on, whose query and gallery must not be calibrated on.",
        ),
    ] = None

    def check(self, precision: Precision) -> None:
        """Raise InputError where they are missing, or not needed."""
        if precision == "int8" and self.calibration is None:
            raise InputError(
                "--int8 needs images to calibrate with: --calibration FOLDER, never query or gallery"
            )
        if precision != "int8" and (self.calibration or self.data):
            raise InputError("--calibration and --data are for --int8")


@dataclass(frozen=True)
class FileOptions:
    """What the file is like, and whether it may replace another."""

    batch: Annotated[str, Option(help="'dynamic', or the one batch size that the file takes.")] = "dynamic"
    opset: Annotated[
        int, Option(help="Of ONNX: 11 to 25, INT8 from 13 on; older runtimes need an older one.")
    ] = 18
    force: ForceOption = False


@with_option_groups
def onnx(  # noqa: PLR0913 - groups of options
    checkpoint: Annotated[Path, Argument(help="Checkpoint of any known project.")],
    output: Annotated[
        Path | None,
        Option(
            "-o",
            "--output",
            help="Where to write; default: the checkpoint's name with .onnx, and with what differs from the defaults: "
            "model-fp16.onnx, model-flip-int8-cpu.onnx.",
        ),
    ] = None,
    *,
    graph: GraphChoices,
    precision: PrecisionOptions,
    calibration: CalibrationOptions,
    file: FileOptions,
    pixels: PixelOptions,
    stated: CheckpointOptions,
    evidence: EvidenceOptions,
) -> None:
    """Fold a checkpoint into an inference graph and write it as ONNX, checked against torch."""
    from reidexport.checkpoint.loading import load_checkpoint
    from reidexport.export.graph import GraphOptions, graph_from_checkpoint
    from reidexport.export.onnx_export import onnx_from_graph
    from reidexport.progress import progress_bar

    check_strict(evidence.strict, evidence.images)
    chosen, target = precision.chosen(), precision.target or "cpu"
    calibration.check(chosen)
    batch_size, choices = _parse_batch(file.batch), stated.choices(pixels)
    path = output or _default_output(checkpoint, graph, file, chosen, target)
    check_replaceable(path, force=file.force)
    loaded = load_checkpoint(checkpoint, choices)
    log(f"{checkpoint}: {loaded.summary}")
    for line in loaded.fact_lines:
        log(f"  {line}")
    loaded, found = tested(loaded, evidence.images, evidence.depth)
    exit_where_strict(evidence.strict, found)
    manifest = onnx_from_graph(
        graph_from_checkpoint(loaded, GraphOptions(**asdict(graph))),
        path,
        batch=batch_size,
        precision=chosen,
        calibration=calibration.calibration,
        target=target,
        opset=file.opset,
        tested_on=load_dataset(calibration.data) if calibration.data else None,
        measure_speed=chosen == "int8",
        log=log,
        progress_bar=progress_bar,
    )
    _print(path, manifest, is_tested=found is not None)


def _print(path: Path, manifest: Manifest, *, is_tested: bool) -> None:
    image, feature, parity = manifest.input, manifest.output, manifest.parity
    print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB, {manifest.precision})")
    print(f"  in   {image.name}: {image.dtype} {_shape(image.shape)}")
    print(f"  out  {feature.name}: {feature.dtype} {_shape(feature.shape)}")
    print(f"  layers {json.dumps(manifest.layer_precisions)}")
    if parity:
        print(
            f"  same as torch on {parity.num_images} images: relative L2 error at most {parity.max_relative_l2:.1e}, "
            f"cosine at least {parity.min_cosine:.7f}"
        )
        if assumed := assumed_text(manifest.origins):
            print(f"  assumed {assumed}{'' if is_tested else '; --images DIR tests them'}")


def _default_output(
    checkpoint: Path,
    graph: GraphChoices,
    file: FileOptions,
    precision: Precision,
    target: QuantizationTarget,
) -> Path:
    """``model.pth`` becomes ``model.onnx``, or ``model-flip-fp16.onnx``: all that is not the default is in the name.

    ``model.pth.tar-60`` keeps its epoch: ``model.pth.tar-60.onnx``.
    """
    told = {
        "f_t": graph.feature == "f_t",
        "normalized": graph.normalize,
        "flip": graph.flip,
        "float32": graph.input == "float32",
        f"batch{file.batch}": file.batch != "dynamic",
        f"opset{file.opset}": file.opset != FileOptions.opset,
        "fp16": precision == "fp16",
        f"int8-{target}": precision == "int8",
    }
    checkpoint = checkpoint if checkpoint.name else checkpoint.resolve()  # "." of a folder
    is_usual = checkpoint.suffix in (".pth", ".pt", ".safetensors")
    stem = checkpoint.stem if is_usual else checkpoint.name
    return checkpoint.with_name(
        "-".join([stem, *(name for name, differs in told.items() if differs)]) + ".onnx"
    )


def _parse_batch(text: str) -> int | Literal["dynamic"]:
    if text == "dynamic":
        return "dynamic"
    if not (text.isdecimal() and int(text)):
        raise InputError(f"--batch {text}: expected 'dynamic' or a batch size of at least 1")
    return int(text)


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("batch" if size is None else str(size) for size in shape) + "]"
