"""``run_demo``: the whole way, step after step, into one folder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.demo import steps
from reidexport.demo.steps import DemoSettings
from reidexport.demo.summary import FILES, markdown
from reidexport.errors import InputError
from reidexport.files import folder_when_whole
from reidexport.records.demo import DemoSummary
from reidexport.records.reading import write_record
from reidexport.report import read_results, write_report

MARKER = ".reidexport-demo"
_PRECISIONS: tuple[Literal["fp32", "fp16"], ...] = ("fp32", "fp16")


def run_demo(
    out: str | Path, *, settings: DemoSettings | None = None, log: Callable[[str], None] | None = None
) -> DemoSummary:
    """Draw people, train on them, export, verify, evaluate and measure; leave everything in one folder.

    Args:
        out: the folder; an earlier result of the demo there is replaced when the new one is whole.
        settings: smaller or larger than the default, which takes one to two minutes on two cores.
        log: called with a line before every step.

    Returns:
        What ``summary.json`` holds.

    Raises:
        InputError: ``out`` holds something that the demo did not make.
        NotInstalledError: ONNX Runtime or the trainer is missing.
        ParityError: an exported file does not answer as torch does.
    """
    settings, log = settings or DemoSettings(), log or (lambda _: None)
    with replaced_folder(Path(out), FILES) as folder:
        began = time.perf_counter()
        log("drawing people, and training a ResNet-18 with BNNeck on them")
        dataset, training = steps.train(folder, settings)
        checkpoint = load_checkpoint(folder / "checkpoint.pth")
        artifacts = []
        (folder / "results").mkdir()
        for precision in _PRECISIONS:
            log(f"exporting {precision}, verifying it against the checkpoint, measuring it")
            path = folder / f"model-{precision}.onnx"
            artifact, evaluation = steps.export(checkpoint, dataset, path, precision, settings)
            for record in (artifact.eval, artifact.verify, artifact.bench):
                write_record(folder / "results" / f"{record.kind}-{precision}.json", record)
            artifacts.append(artifact)
        steps.draw_ranked_lists(evaluation, folder / "ranked-lists.png")
        results = read_results([folder / "results"])
        write_report(folder / "report.html", results, evaluation, path.name, title="reidexport demo")
        summary = DemoSummary(
            passed=all(artifact.verify.passed for artifact in artifacts),
            dataset=steps.counts(dataset),
            training=training,
            raw_pixels=steps.raw_pixel_ranks(dataset),
            artifacts=tuple(artifacts),
            seconds=time.perf_counter() - began,
        )
        write_record(folder / "summary.json", summary)
        (folder / "summary.md").write_text(markdown(summary), encoding="utf-8")
    return summary


@contextmanager
def replaced_folder(out: Path, contents: tuple[str, ...]) -> Iterator[Path]:
    """Yield an empty folder to fill, which replaces ``out`` when it is whole, and if that is the demo's own.

    Anything in ``out`` but ``contents``, the names that the demo writes, is the user's, and is not touched.

    Raises:
        InputError: ``out`` holds something else, or cannot be made.
    """
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder. Choose another --out.")
    names = {entry.name for entry in out.iterdir()} if out.exists() else set()
    foreign = sorted(names - {MARKER, *contents}) if MARKER in names else sorted(names)
    if foreign:
        raise InputError(
            f"{out} holds {foreign[0]}, which the demo did not make. Empty it, or choose another --out."
        )

    def refusal(error: OSError) -> InputError:
        return InputError(f"{out}: cannot make a folder there ({error.strerror}). Choose another --out.")

    with folder_when_whole(out, refusal, make_parents=True, replace=True) as made:
        (made / MARKER).touch()
        yield made
