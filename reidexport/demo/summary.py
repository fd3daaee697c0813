"""What the demo found, as tables and as Markdown."""

from typing import Any

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


def accuracy_table(summary: dict[str, Any]) -> Rows:
    """Rank-1, rank-5 and mAP of raw pixels, the checkpoint and both files; the first row is the heading."""
    checkpoint = summary["artifacts"][0]["verify"]["reference_ranks"]
    named = [("raw pixels", summary["raw_pixels"]), ("checkpoint", checkpoint)]
    named += [(each["artifact"], each) for each in summary["artifacts"]]
    ranks = ("rank1", "rank5", "mAP")
    return [["", "rank-1", "rank-5", "mAP"]] + [
        [name, *(f"{of[key]:.1%}" for key in ranks)] for name, of in named
    ]


def parity_table(summary: dict[str, Any]) -> Rows:
    """What ``verify`` found about each file against the checkpoint."""
    rows = [["", "verify", "lowest cosine", "rank-1 drop (points)", "mAP drop (points)"]]
    for each in summary["artifacts"]:
        found = each["verify"]
        drops = (f"{found['drops'][key]:z.2f}" for key in ("rank1", "mAP"))
        verdict = "passed" if found["passed"] else "FAILED"
        rows.append([each["artifact"], verdict, f"{found['min_cosine']:.6f}", *drops])
    return rows


def speed_table(summary: dict[str, Any]) -> Rows:
    """Latency and throughput of each file, the network alone."""
    rows = [["", "batch", "p50 ms", "p99 ms", "images/s"]]
    for each in summary["artifacts"]:
        for timing in each["bench"]:
            times = (f"{timing[key]:.2f}" for key in ("p50_ms", "p99_ms"))
            rows.append(
                [each["artifact"], str(timing["batch_size"]), *times, f"{timing['images_per_s']:.0f}"]
            )
    return rows


def markdown(summary: dict[str, Any]) -> str:
    """The page as Markdown, with ``ranked-lists.png`` beside it: what was done, on what, and what it does not mean."""
    data, training, machine = summary["dataset"], summary["training"], summary["machine"]
    versions = summary["versions"]
    return "\n\n".join(
        [
            "# reidexport demo",
            f"A {training['backbone']} with BNNeck, trained for {training['seconds']:.0f} s on "
            f"{data['num_train']} drawn images of {data['num_train_pids']} people, looks for "
            f"{data['num_query_pids']} people it has never seen: {data['num_query']} queries in a gallery of "
            f"{data['num_gallery']} images. The people are drawn and the training is short: the figures show that "
            "every step works, and say nothing about real cameras.",
            "## Accuracy",
            _markdown_table(accuracy_table(summary)),
            "## The files answer as the checkpoint does",
            _markdown_table(parity_table(summary)),
            "## Speed",
            _markdown_table(speed_table(summary)),
            "; ".join(f"{each['artifact']}: {each['runtime']}" for each in summary["artifacts"]),
            "## Ranked lists",
            "![Queries and their nearest gallery images](ranked-lists.png)",
            f"{machine['cpu']}, {machine['cores']} cores; reidexport {versions.get('reidexport', '')}, "
            f"torch {versions.get('torch', '')}; {summary['seconds']:.0f} s in all.\n",
        ]
    )


def text_table(rows: Rows) -> str:
    """Rows with aligned columns, for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        for row in rows
    )
    return "\n".join("  ".join(line) for line in lines)


def _markdown_table(rows: Rows) -> str:
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))
