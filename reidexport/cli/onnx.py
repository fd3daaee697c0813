"""``reidexport onnx``: checkpoint → ONNX."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from reidruntime.artifact.manifest import QuantizationTarget

from reidexport.cli.artifact_options import SizeOption
from reidexport.cli.checkpoint_options import CheckpointOptions
from reidexport.cli.option_groups import with_option_groups
from reidexport.errors import InputError


@with_option_groups
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of any known project.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Where to write; default: the checkpoint's name with .onnx."),
    ] = None,
    feature: Annotated[
        Literal["f_i", "f_t"] | None,
        typer.Option(help="Feature behind (f_i) or before (f_t) the neck; default: f_i."),
    ] = None,
    normalize: Annotated[bool, typer.Option("--normalize", help="Make every feature unit length.")] = False,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average the features of the image and its mirror.")
    ] = False,
    input_: Annotated[
        Literal["uint8", "float32"],
        typer.Option("--input", help="uint8: raw RGB pixels, NHWC. float32: normalized images, NCHW."),
    ] = "uint8",
    batch: Annotated[
        str, typer.Option(help="'dynamic', or the one batch size that the file takes.")
    ] = "dynamic",
    fp16: Annotated[
        bool, typer.Option("--fp16/--fp32", help="Half the convolutions, or keep all in FP32.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize the convolutions; needs --calibration.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For --int8: a folder of real images, or a data set, whose train split is taken.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        QuantizationTarget | None,
        typer.Option(help="For --int8: what will run the file; cpu if left out.", show_default=False),
    ] = None,
    size: SizeOption = None,
    *,
    stated: CheckpointOptions,
) -> None:
    """Fold a checkpoint into an inference graph and write it as ONNX, checked against torch."""
    import json
    import sys

    from reidexport.evaluation.opening import load_chosen
    from reidexport.export.graph import GraphOptions, graph_from_checkpoint
    from reidexport.export.onnx_export import onnx_from_graph
    from reidexport.progress import progress_bar

    _check_precision(fp16, int8, calibration, target)
    loaded = load_chosen(checkpoint, stated.choices(size))
    print(f"{checkpoint}: {loaded.summary}", file=sys.stderr)
    for fact in loaded.assumed:
        print(f"  assumed: {fact}", file=sys.stderr)
    graph = graph_from_checkpoint(
        loaded, GraphOptions(feature=feature, normalize=normalize, flip=flip, input=input_)
    )
    path = output or _default_output(checkpoint)
    manifest = onnx_from_graph(
        graph,
        path,
        batch=_parse_batch(batch),
        precision="int8" if int8 else "fp16" if fp16 else "fp32",
        calibration=calibration,
        target=target or "cpu",
        log=lambda line: print(line, file=sys.stderr),
        progress_bar=progress_bar,
    )
    source, answer = manifest.input, manifest.output
    parity = manifest.parity
    print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB, {manifest.precision})")
    print(f"  in   {source.name}: {source.dtype} {_shape(source.shape)}")
    print(f"  out  {answer.name}: {answer.dtype} {_shape(answer.shape)}")
    print(f"  layers {json.dumps(manifest.layer_precisions)}")
    if parity:
        print(
            f"  same as torch on {parity.num_images} images: relative L2 error at most {parity.max_relative_l2:.1e}, "
            f"cosine at least {parity.min_cosine:.7f}"
        )


def _check_precision(
    fp16: bool, int8: bool, calibration: Path | None, target: QuantizationTarget | None
) -> None:
    if fp16 and int8:
        raise InputError("--fp16 and --int8 exclude each other")
    if int8 and calibration is None:
        raise InputError(
            "--int8 needs images to calibrate with: --calibration FOLDER, never query or gallery"
        )
    if not int8 and (calibration or target):
        raise InputError("--calibration and --target are for --int8")


def _default_output(checkpoint: Path) -> Path:
    """``model.pth`` becomes ``model.onnx``; ``model.pth.tar-60`` keeps its epoch: ``model.pth.tar-60.onnx``."""
    if checkpoint.suffix in (".pth", ".pt", ".safetensors"):
        return checkpoint.with_suffix(".onnx")
    return checkpoint.with_name(checkpoint.name + ".onnx")


def _parse_batch(text: str) -> int | Literal["dynamic"]:
    if text == "dynamic":
        return "dynamic"
    if not (text.isdecimal() and int(text)):
        raise InputError(f"--batch {text}: expected 'dynamic' or a batch size of at least 1")
    return int(text)


def _shape(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("batch" if size is None else str(size) for size in shape) + "]"
