"""The tables of speed in docs/benchmarks.md, from committed results: ``python -m benchmarks.speed_table`` writes them.

Of every machine in ``benchmarks/results`` on which ``pytest benchmarks`` ran.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from reidexport.files import replaced_when_whole
from reidexport.records.reading import read_record
from reidexport.records.speed import Benchmark, BenchmarkRow

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
RESULTS = Path(__file__).parent / "results"

_BEGIN, _END = "<!-- speed: python -m benchmarks.speed_table -->", "<!-- end of speed -->"
# Questions about an artifact on a backend, which has a line for all of them.
_NETWORK_QUESTIONS = ("throughput", "latency", "cold_start", "memory")
_COLUMNS = ("batch 1", "batch 8", "batch 32", "batch 128", "batch 256", "latency", "cold start", "memory")
_ON_GPUS = ("batch 128", "batch 256")  # left out of the tables of other machines
# Questions whose rows are a line each, with the peers that a reader would otherwise use.
_COMPARISONS = {
    "end_to_end": ("torch DataLoader", "network alone"),
    "preprocessing": ("Pillow",),
    "transformers": ("timm eager", "onnxruntime on timm's export"),
    "ranking": ("plain evaluator", "original", "limit"),
    "gallery": ("faiss IndexFlatIP", "faiss knn", "usearch exact", "faiss-gpu", "cuVS brute force"),
}


def main() -> None:
    """Write the tables into the page."""
    text = page_with_tables(PAGE.read_text())
    with replaced_when_whole(PAGE) as temporary:
        temporary.write_text(text)


def page_with_tables(page: str) -> str:
    """The page with the tables of the committed results between its two marks.

    Raises:
        ValueError: the marks are missing.
    """
    if not (_BEGIN in page and _END in page):
        raise ValueError(f"{PAGE.name} lacks the lines {_BEGIN} and {_END}.")
    folders = sorted(path for path in RESULTS.iterdir() if path.is_dir())
    tables = "\n\n".join(table for folder in folders for table in machine_tables(folder))
    return re.sub(f"(?s)(?<={re.escape(_BEGIN)}\n).*(?={re.escape(_END)})", lambda _: f"\n{tables}\n\n", page)


def machine_tables(folder: Path) -> Iterator[str]:
    """The tables of one machine's results: networks against torch, then everything else against its peers."""
    link = f"[{folder.name}](../benchmarks/results/{folder.name})"
    rows: dict[str, list[BenchmarkRow]] = defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        if isinstance(record := read_record(file), Benchmark):
            rows[record.question] += record.rows
    networks: dict[str, dict[str, str]] = {}
    for question in _NETWORK_QUESTIONS:
        for row in rows[question]:
            column = f"batch {row.batch_size}" if question == "throughput" else question.replace("_", " ")
            place = ", from and to the GPU's memory" if row.in_memory_of == "cuda" else ""
            networks.setdefault(f"{row.artifact}, {row.backend}{place}", {})[column] = _cell(question, row)
    if networks:
        title = f"{link}: × torch eager (share of the limit; or time)"
        measured = {column for cells in networks.values() for column in cells}
        columns = [column for column in _COLUMNS if column in measured or column not in _ON_GPUS]
        lines = [[name, *(cells.get(column, "–") for column in columns)] for name, cells in networks.items()]
        yield _table([title, *columns], lines)
    lines = [
        line
        for question, peers in _COMPARISONS.items()
        for row in rows[question]
        for line in _lines(row, peers)
    ]
    if lines:
        yield _table([link, "time, s", "against", "times as fast"], lines)


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def _cell(question: str, row: BenchmarkRow) -> str:
    """The ratio to torch eager, where that was a peer, and another figure; of memory that alone."""
    if question == "memory":
        return f"{row.peak_mib['reidexport'].median:.0f} MiB"
    if isinstance(row.ratios, str):
        return "disturbed"
    ratio, seconds = row.ratios.get("torch eager"), row.seconds["reidexport"].median
    figures = [f"{ratio.median:.1f}"] if ratio else []
    if question != "throughput":
        figures.append(f"{1000 * seconds:.1f} ms" if question == "latency" else f"{seconds:.2f} s")
    elif not ratio:
        figures.append(f"{row.images_per_s:.0f} images/s")
    if row.share_of_limit is not None:
        figures.append(f"{row.share_of_limit:.0%}")
    return f"{figures[0]} ({figures[1]})" if figures[1:] else figures[0]


def _lines(row: BenchmarkRow, peers: tuple[str, ...]) -> Iterator[list[str]]:
    """A line for each of the peers that were there."""
    for peer in peers:
        if peer not in row.seconds:
            continue
        times = "disturbed"
        if not isinstance(row.ratios, str):
            ratio = row.ratios[peer]
            times = f"{ratio.median:.3g} ({ratio.lowest:.3g} to {ratio.highest:.3g})"
        name = "the matrix product alone" if peer == "limit" else peer
        yield [row.name, f"{row.seconds['reidexport'].median:.3g}", name, times]


if __name__ == "__main__":
    main()
