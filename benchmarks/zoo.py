"""Every network that is read: what it takes and answers, how large and how fast it is, and how it was verified.

    python -m benchmarks.zoo FILE [CASE ...]    measures the networks of tests/golden, into FILE
    python -m benchmarks.zoo --page             writes the tables of docs/zoo.md from benchmarks/results/*/zoo.json

Speed and size do not depend on trained weights: they are measured with drawn ones, which go through a checkpoint file
under their project's own names, as anybody's would.
"""

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from reidruntime import SessionOptions, open_session
from reidruntime.backends import BackendName

from benchmarks.harness.operations import operations_per_image
from benchmarks.harness.result_file import place_of
from benchmarks.harness.turns import calls_in_a_row, rounded
from reidexport import GraphOptions, graph_from_checkpoint, load_checkpoint, onnx_from_graph
from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.errors import InputError
from reidexport.evaluation.timing import noise
from reidexport.export.graph import InferenceGraph
from reidexport.export.quantization.int8 import int8_without_search
from reidexport.files import replaced_when_whole
from reidexport.records.base import here
from reidexport.records.reading import read_record, write_record
from reidexport.records.speed import ZooNetwork, ZooRecord

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
PAGE = ROOT / "docs" / "zoo.md"
BATCH_SIZE = 8
# What runs each precision.
BACKENDS: dict[str, BackendName] = {
    "fp32": "onnxruntime",
    "bf16": "openvino-bf16",
    "int8": "onnxruntime",
}
_TURN_S = 1.0
_BEGIN, _END = "<!-- zoo: python -m benchmarks.zoo --page -->", "<!-- end of zoo -->"


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("case", nargs="*", help="of tests/golden; all of them if left out")
    parser.add_argument("--page", action="store_true", help="write docs/zoo.md")
    options = parser.parse_args()
    if options.page == (options.file is not None):
        parser.error("pass a FILE to measure into, or --page")
    if options.page:
        with replaced_when_whole(PAGE) as temporary:
            temporary.write_text(page_with_tables(PAGE.read_text()))
        return
    measure(options.file, options.case)


def golden_cases() -> dict[str, dict[str, Any]]:
    """Names and shapes of the golden cases' tensors, and what is said of them; not those of folders with a config."""
    cases: dict[str, dict[str, Any]] = {}
    for path in sorted(GOLDEN.glob("shapes*.json.gz")):
        with gzip.open(path, "rt") as stream:
            cases |= json.load(stream)
    return {name: about for name, about in cases.items() if "config" not in about}


def measure(file: Path, names: Sequence[str]) -> None:
    """Measure networks one after the other; those that ``file`` has are left out, so that it can be interrupted.

    Raises:
        InputError: there is no such case, or the file is no zoo, or one of another machine or other versions.
    """
    cases = golden_cases()
    if unknown := set(names) - cases.keys():
        raise InputError(f"no golden case is called {', '.join(sorted(unknown))}")
    record = ZooRecord(networks=(), **here())
    if file.exists():
        record = _continued(file, record)
    done = {network.case for network in record.networks}
    with TemporaryDirectory(prefix="zoo-") as folder:
        for name in names or cases:
            if name in done:
                continue
            print(name, file=sys.stderr)
            networks = (*record.networks, _measured(name, cases[name], Path(folder)))
            record = record.model_copy(update={"networks": networks})
            write_record(file, record)


def _continued(file: Path, fresh: ZooRecord) -> ZooRecord:
    record = read_record(file)
    if not isinstance(record, ZooRecord):
        raise InputError(f"{file} is no zoo but a record of kind {record.kind}: pass another FILE")
    if place_of(record) != place_of(fresh):
        raise InputError(f"{file} was measured on another machine or with other versions: pass another FILE")
    return fresh.model_copy(update={"networks": record.networks})


def _measured(name: str, about: dict[str, Any], folder: Path) -> ZooNetwork:
    told = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in about.get("choices", {}).items()
    }
    torch.save(dict(_drawn(about["shapes"])), folder / "model.pth")
    checkpoint = load_checkpoint(folder / "model.pth", CheckpointChoices(**told))
    graph = graph_from_checkpoint(checkpoint, GraphOptions())
    path, speeds, refused = folder / "model.onnx", {}, {}
    onnx_from_graph(graph, path)
    for precision, backend in BACKENDS.items():
        try:
            file = _in_int8(path, graph) if precision == "int8" else path
            speeds[precision] = _images_per_s(file, backend)
        except InputError as error:
            refused[precision] = str(error)
    return ZooNetwork(
        project=checkpoint.family,
        case=name,
        backbone=checkpoint.architecture.backbone,
        height_px=checkpoint.preprocess.height_px,
        width_px=checkpoint.preprocess.width_px,
        feature=str(graph.options.feature),
        feature_dim=graph.feature_dim,
        size_mib=rounded(path.stat().st_size / 2**20),
        gflop=rounded(operations_per_image(path) / 1e9),
        batch_size=BATCH_SIZE,
        images_per_s=speeds,
        refused=refused,
    )


def _drawn(shapes: dict[str, Sequence[int]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights that keep activations moderate, under their project's names."""
    generator = torch.Generator().manual_seed(0)
    for name, shape in shapes.items():
        if name.endswith(("num_batches_tracked", "relative_position_index")):
            yield name, torch.zeros(tuple(shape), dtype=torch.int64)
        elif name.endswith((".bn3.weight", ".W.1.weight")):
            yield name, torch.full(tuple(shape), 0.1)  # ends of branches, whose sum would grow and grow
        elif name.endswith(("running_var", ".p")) or (len(shape) == 1 and name.endswith("weight")):
            yield name, torch.ones(tuple(shape))
        elif len(shape) == 1:
            yield name, torch.zeros(tuple(shape))
        else:
            fan_in = max(torch.Size(shape[1:]).numel(), 1)
            yield name, torch.randn(tuple(shape), generator=generator) / fan_in**0.5


def _in_int8(path: Path, graph: InferenceGraph) -> Path:
    file = path.with_name("int8.onnx")
    onnx.save(int8_without_search(onnx.load(path), graph.example(BATCH_SIZE).numpy()), file)
    return file


def _images_per_s(file: Path, backend: BackendName) -> float:
    with open_session(file, SessionOptions(backend)) as session:
        run = partial(session.run, noise(session, BATCH_SIZE))
        return rounded(BATCH_SIZE / min(calls_in_a_row(run, _TURN_S)))


def page_with_tables(page: str) -> str:
    """The page with a table for each project between its two marks.

    Raises:
        ValueError: the marks are missing.
    """
    if not (_BEGIN in page and _END in page):
        raise ValueError(f"{PAGE.name} lacks the lines {_BEGIN} and {_END}.")
    texts = []
    for file in sorted((ROOT / "benchmarks" / "results").glob("*/zoo.json")):
        record = read_record(file)
        if isinstance(record, ZooRecord):
            texts.append("\n".join(_tables(record, file)))
    return re.sub(
        f"(?s)(?<={re.escape(_BEGIN)}\n).*(?={re.escape(_END)})",
        lambda _: "\n" + "\n\n".join(texts) + "\n\n",
        page,
    )


def _tables(record: ZooRecord, file: Path) -> Iterable[str]:
    yield (
        f"Images per second on [{file.parent.name}](../{file.relative_to(ROOT)}) in batches of {BATCH_SIZE}: FP32 and "
        "INT8 by ONNX Runtime, BF16 by OpenVINO. INT8 has every convolution and every addition of maps quantized; an "
        "exported file keeps up to a quarter of them float32, as its accuracy asks. A dash: refused, as INT8 of "
        "transformers is."
    )
    by_project = sorted(record.networks, key=lambda network: network.project)
    for project, networks in groupby(by_project, key=lambda network: network.project):
        yield f"\n### {project}\n"
        precisions = " | ".join(map(str.upper, BACKENDS))
        header = f"network | input | feature | FP32 file, MiB | GFLOP | {precisions} | vectors"
        yield f"| {header} |"
        yield f"|{'---|' * len(header.split('|'))}"
        for network in networks:
            speeds = network.images_per_s
            yield " | ".join(
                (
                    f"| {network.backbone} | {network.height_px}x{network.width_px}",
                    f"{network.feature}, {network.feature_dim}",
                    f"{network.size_mib:.3g} | {network.gflop:.3g}",
                    *(f"{speeds[precision]:.3g}" if precision in speeds else "–" for precision in BACKENDS),
                    f"`{network.case}` |",
                )
            )


if __name__ == "__main__":
    main()
