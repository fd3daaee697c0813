"""What the demo found, as tables and as Markdown."""

from reidexport.records.accuracy import Ranks
from reidexport.records.demo import DemoSummary

FILES = (
    "data",
    "training",
    "checkpoint.pth",
    "model-fp32.onnx",
    "model-fp16.onnx",
    "ranked-lists.png",
    "results",
    "report.html",
    "summary.json",
    "summary.md",
)
Rows = list[list[str]]


def accuracy_table(summary: DemoSummary) -> Rows:
    """Rank-1, rank-5 and mAP of raw pixels, the checkpoint and both files; the first row is the heading."""
    named: list[tuple[str, Ranks | None]] = [("raw pixels", summary.raw_pixels)]
    named += [("checkpoint", summary.artifacts[0].verify.reference_ranks)]
    named += [(each.artifact, each.eval) for each in summary.artifacts]
    return [["", "rank-1", "rank-5", "mAP"]] + [
        [name, *(f"{value:.1%}" for value in (of.rank1, of.rank5, of.mAP))] for name, of in named if of
    ]


def parity_table(summary: DemoSummary) -> Rows:
    """What ``verify`` found about each file against the checkpoint."""
    rows = [["", "verify", "lowest cosine", "rank-1 drop (points)", "mAP drop (points)"]]
    for each in summary.artifacts:
        drops = (f"{each.verify.drops[key]:z.2f}" for key in ("rank1", "mAP"))
        verdict = "passed" if each.verify.passed else "FAILED"
        rows.append([each.artifact, verdict, f"{each.verify.min_cosine:.6f}", *drops])
    return rows


def speed_table(summary: DemoSummary) -> Rows:
    """Latency and throughput of each file, the network alone."""
    return [["", "batch", "p50 ms", "p99 ms", "images/s"]] + [
        [each.artifact, f"{of.batch_size}", f"{of.p50_ms:.2f}", f"{of.p99_ms:.2f}", f"{of.images_per_s:.0f}"]
        for each in summary.artifacts
        for of in each.bench.batches
    ]


def markdown(summary: DemoSummary) -> str:
    """The page as Markdown, with ``ranked-lists.png`` beside it: what was done, on what, and what it does not mean."""
    data, training, measured = summary.dataset, summary.training, summary.artifacts[0].eval
    versions = measured.versions
    return "\n\n".join(
        [
            "# reidexport demo",
            f"A {training.backbone} with BNNeck, trained for {training.seconds:.0f} s on "
            f"{data.num_train} drawn images of {data.num_train_pids} people, looks for "
            f"{data.num_query_pids} people it has never seen: {data.num_query} queries in a gallery of "
            f"{data.num_gallery} images. The people are drawn and the training is short: the figures show that "
            "every step works, and say nothing about real cameras.",
            "## Accuracy",
            _markdown_table(accuracy_table(summary)),
            "## The files answer as the checkpoint does",
            _markdown_table(parity_table(summary)),
            "## Speed",
            _markdown_table(speed_table(summary)),
            "; ".join(f"{each.artifact}: {each.eval.runtime}" for each in summary.artifacts),
            "## Ranked lists",
            "![Queries and their nearest gallery images](ranked-lists.png)",
            f"{measured.machine['cpu']}, {measured.machine['cores']} cores; reidexport "
            f"{versions.get('reidexport', '')}, torch {versions.get('torch', '')}; {summary.seconds:.0f} s in all.\n",
        ]
    )


def _markdown_table(rows: Rows) -> str:
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))
