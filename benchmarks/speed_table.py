"""The README's tables of speed, from committed results: ``python -m benchmarks.speed_table`` writes them.

Of every machine in ``benchmarks/results`` on which ``pytest benchmarks`` ran.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reidexport.files import replaced_when_whole

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"

_BEGIN, _END = "<!-- speed: python -m benchmarks.speed_table -->", "<!-- end of speed -->"
_BATCH_SIZES = (1, 8, 32)
# Questions whose rows are a line each, with the peers that a reader would otherwise use.
_COMPARISONS = {
    "end_to_end": ("torch DataLoader", "network alone"),
    "preprocessing": ("Pillow",),
    "ranking": ("plain evaluator", "original", "limit"),
    "gallery": ("faiss IndexFlatIP", "faiss knn", "usearch exact"),
}

Json = dict[str, Any]


def main() -> None:
    """Write the tables into the README."""
    text = readme_with_tables(README.read_text())
    with replaced_when_whole(README) as temporary:
        temporary.write_text(text)


def readme_with_tables(readme: str) -> str:
    """The README with the tables of the committed results between its two marks.

    Raises:
        ValueError: the marks are missing.
    """
    if not (_BEGIN in readme and _END in readme):
        raise ValueError(f"README.md lacks the lines {_BEGIN} and {_END}.")
    questions = ("throughput", *_COMPARISONS)
    folders = sorted({file.parent for name in questions for file in RESULTS.glob(f"*/{name}*.json")})
    tables = "\n\n".join(table for folder in folders for table in machine_tables(folder))
    return re.sub(
        f"(?s)(?<={re.escape(_BEGIN)}\n).*(?={re.escape(_END)})", lambda _: f"\n{tables}\n\n", readme
    )


def machine_tables(folder: Path) -> Iterator[str]:
    """The tables of one machine's results: networks against torch, then everything else against its peers."""
    if throughputs := [_read(file) for file in sorted(folder.glob("throughput*.json"))]:
        yield _networks(throughputs, folder)
    found = [
        (_read(file), peers)
        for name, peers in _COMPARISONS.items()
        for file in sorted(folder.glob(f"{name}*.json"))
    ]
    lines = [line for result, peers in found for line in _lines(result, peers)]
    if lines:
        place = _place(found[0][0], folder)
        yield "\n".join([f"| {place} | time, s | against | times as fast |", "|---|---|---|---|", *lines])


def _read(path: Path) -> Json:
    found: Json = json.loads(path.read_text())
    return found


def _place(result: Json, folder: Path) -> str:
    machine = result["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores ([JSON](benchmarks/results/{folder.name}))"


def _networks(throughputs: list[Json], folder: Path) -> str:
    """A line for each artifact and backend: ratio to torch eager and share of the machine's limit, by batch size."""
    rows = [row for throughput in throughputs for row in throughput["rows"]]
    title = f"{_place(throughputs[0], folder)}: × torch eager (share of the limit)"
    lines = [
        f"| {title} | {' | '.join(f'batch {size}' for size in _BATCH_SIZES)} |",
        "|---|" + "---|" * len(_BATCH_SIZES),
    ]
    for artifact, backend in dict.fromkeys((row["artifact"], row["backend"]) for row in rows):
        cells = {
            row["batch_size"]: _cell(row)
            for row in rows
            if (row["artifact"], row["backend"]) == (artifact, backend)
        }
        figures = " | ".join(cells.get(size, "–") for size in _BATCH_SIZES)
        lines.append(f"| {artifact}, {backend} | {figures} |")
    return "\n".join(lines)


def _cell(row: Json) -> str:
    if isinstance(row["ratios"], str):
        return "disturbed"
    ratio = row["ratios"].get("torch eager")
    share = f" ({row['share_of_limit']:.0%})" if "share_of_limit" in row else ""
    return f"{ratio['median']:.1f}{share}" if ratio else f"{row['images_per_s']:.0f} images/s{share}"


def _lines(result: Json, peers: tuple[str, ...]) -> Iterator[str]:
    for row in result["rows"]:
        for peer in peers:
            if isinstance(row["ratios"], str) or peer not in row["ratios"]:
                continue
            ratio, seconds = row["ratios"][peer], row["seconds"]["reidexport"]["median"]
            name = "the matrix product alone" if peer == "limit" else peer
            times = f"{ratio['median']:.3g} ({ratio['lowest']:.3g} to {ratio['highest']:.3g})"
            yield f"| {row['name']} | {seconds:.3g} | {name} | {times} |"


if __name__ == "__main__":
    main()
