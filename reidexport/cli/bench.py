"""``reidexport bench``: latency and throughput of an artifact."""

from typing import Annotated

import typer
from typer import Option

from reidexport.cli.option_groups import with_option_groups
from reidexport.cli.output import JsonOption, log
from reidexport.cli.shared_options import ArtifactArgument, ForeignOptions, RunOptions
from reidexport.data.image_paths import find_images
from reidexport.errors import InputError
from reidexport.evaluation.timing import bench_session
from reidexport.records.reading import write_record
from reidexport.records.speed import BenchReport


@with_option_groups
def bench(
    artifact: ArtifactArgument,
    batch: Annotated[str, Option(metavar="N,N,...", help="Batch sizes to measure.")] = "1,8,32",
    seconds: Annotated[float, Option(min=0.1, help="How long to measure each batch size.")] = 3.0,
    images: Annotated[
        list[str] | None,
        Option(metavar="PATH", help="Also measure from these files or folders, reading included."),
    ] = None,
    *,
    run: RunOptions,
    foreign: ForeignOptions,
    json_file: JsonOption = None,
) -> None:
    """Measure latency and throughput of an artifact.

    The network alone, from pixels in memory; with --images also from files to embeddings.
    """
    batch_sizes = _parse_batches(batch)
    paths = find_images(images or [], log=log)
    with run.open(artifact, foreign.manifest(artifact)) as session:
        report = bench_session(session, batch_sizes, seconds_per_batch=seconds, image_paths=paths)
    _print(report)
    write_record(json_file, report.model_copy(update={"artifact": str(artifact)}))


def _parse_batches(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--batch {text!r}: expected positive numbers with commas between, as in 1,8,32.")
    return [int(part) for part in parts]


def _print(report: BenchReport) -> None:
    for warning in report.warnings:
        log(f"warning: {warning}")
    typer.echo(report.session)
    typer.echo(f"{'batch':>6} {'p50 ms':>9} {'p90 ms':>9} {'p99 ms':>9} {'images/s':>9}")
    for row in report.batches:
        latencies = f"{row.p50_ms:9.2f} {row.p90_ms:9.2f} {row.p99_ms:9.2f}"
        typer.echo(f"{row.batch_size:6d} {latencies} {row.images_per_s:9.1f}")
    if report.end_to_end:
        whole = report.end_to_end
        typer.echo(
            f"from {whole.num_images} files: {whole.images_per_s:.1f} images/s, {whole.share_of_net:.1%} of "
            f"the network alone at batch {whole.batch_size} ({whole.net_images_per_s:.1f} images/s)"
        )
