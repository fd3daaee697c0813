"""What does a server in front of a session cost, when many clients ask at once?

    python -m benchmarks.serving ARTIFACT [--clients 16] [--batch 8] [--seconds 60] [--json FILE]

Starts ``reidexport serve``, and lets clients that each send one batch after the other, over gRPC, take turns with the
session itself in this process (A B C, A B C, …). Every answer is compared with the session's own of the same pixels.
Needs ``pip install "reidexport[serve,cpu]"``.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from reidruntime import Session, open_session
from reidruntime.artifact.manifest import file_sha256
from reidruntime.images.preprocess import image_pixels
from reidruntime.images.resize import Image8
from tritonclient import grpc

from benchmarks.harness.turns import rounded, spread
from reidexport.cpu_share import cpu_use, disturbance, others_share
from reidexport.data.synthetic import draw_people
from reidexport.metrics.agreement import agreement
from reidexport.records.base import here
from reidexport.records.reading import write_record
from reidexport.records.speed import RequestAnswers, RequestSpeed, ServingRecord, Spread

NUM_TURNS = 3
NUM_REQUESTS = 32  # different ones, which the clients send again and again
_MODEL = "measured"
_DIRECT_SHARE = 0.25  # of the clients' time, for each of the session's own two sides

Features = NDArray[np.float32]
Ask = Callable[[Image8], Features]


@dataclass
class SideAnswers:
    """What one side answered in all its turns; clients add to the lists at the same time.

    Attributes:
        latencies: in seconds.
        images_per_s: of each turn.
        differences: of each answer that is checked: whether it has the expected bits, and the largest difference from
            them, of any component and of any row in relative L2.
        failures: what became of the other requests.
    """

    latencies: list[float] = field(default_factory=list)
    images_per_s: list[float] = field(default_factory=list)
    differences: list[tuple[bool, float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def speed(self, batch_size: int) -> RequestSpeed:
        """As it is reported."""
        p50, p99 = np.percentile(self.latencies, (50, 99)) * 1000
        return RequestSpeed(
            batch_size=batch_size,
            num_answered=len(self.latencies),
            p50_ms=rounded(p50),
            p99_ms=rounded(p99),
            images_per_s=Spread(**spread(self.images_per_s)),
        )

    def share_of(self, other: "SideAnswers") -> Spread:
        """Of the other's images a second, turn by turn."""
        pairs = zip(self.images_per_s, other.images_per_s, strict=True)
        return Spread(**spread([own / theirs for own, theirs in pairs]))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8, help="images in a request")
    parser.add_argument("--max-batch", type=int, default=32, help="images that the server runs together")
    parser.add_argument("--instances", type=int, default=1, help="batches that the server runs at a time")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the clients, in all turns together")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    record = measure(
        options.artifact,
        options.clients,
        options.batch,
        options.max_batch,
        options.instances,
        options.seconds,
    )
    print(record.model_dump_json(indent=2, include={"direct", "served", "answers"}))
    if disturbed := disturbance(record.others_cpu_share, record.machine):
        sys.exit(f"No share of the session's speed is reported, and nothing is written: {disturbed}.")
    print(record.model_dump_json(include={"share_of_direct"}))
    write_record(options.json, record)


def measure(
    artifact: Path, num_clients: int, batch_size: int, max_batch: int, instances: int, seconds: float
) -> ServingRecord:
    """Let the session and the clients take turns; all those of the clients together take ``seconds``.

    Raises:
        RuntimeError: the server does not start.
    """
    place, turn_s = here(), seconds / NUM_TURNS
    with open_session(artifact) as session, _serving(artifact, max_batch, instances) as port:
        requests = _requests(session, batch_size)
        expected = [session.run(pixels) for pixels in requests]
        largest = np.concatenate(requests)[:max_batch]
        direct, together, served = SideAnswers(), SideAnswers(), SideAnswers()
        with _clients(port, num_clients, session.manifest.output.name) as clients:
            _turn(clients, requests, SideAnswers(), 2.0)  # warms up
            before = cpu_use()
            for _ in range(NUM_TURNS):
                _turn([session.run], requests, direct, turn_s * _DIRECT_SHARE)
                _turn([session.run], [largest], together, turn_s * _DIRECT_SHARE)
                _turn(clients, requests, served, turn_s, expected)
            share = others_share(before, cpu_use())
        are_bit_equal, differences, relative_l2 = zip(*served.differences, strict=True)
        return ServingRecord(
            artifact=artifact.name,
            artifact_sha256=file_sha256(artifact),
            manifest_sha256=session.manifest.sha256,
            runtime=session.description,
            num_clients=num_clients,
            batch_size=batch_size,
            max_batch=max_batch,
            instances=instances,
            seconds=seconds,
            direct=direct.speed(batch_size),
            direct_at_max_batch=together.speed(max_batch),
            served=served.speed(batch_size),
            share_of_direct=served.share_of(direct),
            share_of_direct_at_max_batch=served.share_of(together),
            answers=RequestAnswers(
                num_requests=len(served.latencies) + len(served.failures),
                num_answered=len(served.latencies),
                failures=tuple(served.failures),
                num_bit_equal=sum(are_bit_equal),
                max_difference=max(differences),
                max_relative_l2=max(relative_l2),
            ),
            others_cpu_share=share,
            **place,
        )


@contextmanager
def _serving(artifact: Path, max_batch: int, instances: int) -> Iterator[int]:
    """``reidexport serve`` on free ports; yields that of gRPC."""
    command = [sys.executable, "-c", "from reidexport.cli import main; main()", "serve", str(artifact)]
    ports = [part for kind in ("http", "grpc", "metrics") for part in (f"--{kind}-port", "0")]
    choices = ["--name", _MODEL, "--max-batch", str(max_batch), "--instances", str(instances)]
    process = subprocess.Popen([*command, *ports, *choices], stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stderr is not None  # noqa: S101 - for the type checker
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"gRPC \S+:(\d+)", line):
                yield int(found.group(1))
                return
        raise RuntimeError("reidexport serve did not start:\n" + "".join(lines))
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def _clients(port: int, count: int, output: str) -> Iterator[list[Ask]]:
    """Calls of the server, over a connection each."""
    clients = [
        grpc.InferenceServerClient(f"127.0.0.1:{port}", channel_args=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(count)
    ]

    def ask(client: Any, pixels: Image8) -> Features:
        tensor = grpc.InferInput("images", pixels.shape, "UINT8")
        tensor.set_data_from_numpy(pixels)
        return client.infer(_MODEL, [tensor], client_timeout=60).as_numpy(output)

    yield [partial(ask, client) for client in clients]
    for client in clients:
        client.close()


def _requests(session: Session, batch_size: int) -> list[Image8]:
    people = [image_pixels(person, "drawn", session.manifest.preprocess) for person in draw_people(64)]
    chosen = np.random.default_rng(0).integers(0, len(people), (NUM_REQUESTS, batch_size))
    return [np.stack([people[number] for number in row]) for row in chosen]


def _turn(
    askers: Sequence[Ask],
    requests: Sequence[Image8],
    answers: SideAnswers,
    seconds: float,
    expected: Sequence[Features] = (),
) -> None:
    """All at once, each one request after the other; one that is sent before the time is over is waited for.

    Where there are ``expected`` features, answers are compared with them.
    """
    num_before, began = len(answers.latencies), time.perf_counter()

    def ask_on(asker: Ask, number: int) -> None:
        while (start := time.perf_counter()) - began < seconds:
            number = (number + 1) % len(requests)
            try:
                found = asker(requests[number])
            except grpc.InferenceServerException as error:
                answers.failures.append(str(error))
                continue
            answers.latencies.append(time.perf_counter() - start)
            if expected:
                rows = agreement(found, expected[number])
                largest = float(rows.max_abs_errors.max()), float(rows.relative_l2.max())
                answers.differences.append((np.array_equal(found, expected[number]), *largest))

    with ThreadPoolExecutor(len(askers)) as threads:
        list(threads.map(ask_on, askers, range(len(askers))))
    num_images = (len(answers.latencies) - num_before) * len(requests[0])
    answers.images_per_s.append(num_images / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
