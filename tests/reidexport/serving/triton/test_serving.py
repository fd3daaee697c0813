"""A served artifact answers as its session does, refuses what it should, and ends without leaving anyone waiting.

These start the Triton server of nvidia-pytriton, which has an environment of its own: ``make serve-test``. Nothing here
needs torch.
"""

import contextlib
import gzip
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reidruntime import EncodedImage, SessionOptions, open_session
from reidruntime.artifact.manifest import METADATA_KEY, manifest_from_json
from reidruntime.images.resize import Image8

from tests.standins.camera_profiles import small_profile, write_profile
from tests.standins.runtime_models import DIM, HEIGHT, WIDTH, write_artifact, write_normalized

pytestmark = pytest.mark.skipif(
    find_spec("pytriton") is None,
    reason="needs nvidia-pytriton, which has its own environment: make serve-test",
)
MAX_BATCH, LIMIT_MIB = 8, 1
_MAIN = [sys.executable, "-c", "from reidexport.cli import main; main()"]


@dataclass(frozen=True)
class Server:
    """A started ``reidexport serve`` of the model "tiny"."""

    process: subprocess.Popen[str]
    artifact: Path
    http_port: int
    grpc_port: int
    metrics_port: int

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        """Status and text of one HTTP request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                method, path, body, {key.replace("_", "-"): value for key, value in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def infer(self, body: bytes, model: str = "tiny", **headers: str) -> tuple[int, str]:
        """Status and text of an inference request."""
        return self.ask("POST", f"/v2/models/{model}/infer", body, **headers)

    def grpc_client(self) -> Any:
        """A client with a connection of its own."""
        from tritonclient import grpc

        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.InferenceServerClient(f"127.0.0.1:{self.grpc_port}", channel_args=options)


@contextlib.contextmanager
def serving(folder: Path, *options: object) -> Iterator[Server]:
    """Serve a tiny network until the end of the block, where it is killed if it still runs."""
    artifact = write_artifact(folder / "tiny.onnx")
    ports = [part for kind in ("http", "grpc", "metrics") for part in (f"--{kind}-port", "0")]
    command = [*_MAIN, "serve", str(artifact), *ports, "--threads", "1", *map(str, options)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://\S+:(\d+), gRPC \S+:(\d+), metrics \S+:(\d+)/", line):
                http_port, grpc_port, metrics_port = map(int, found.groups())
                yield Server(process, artifact, http_port, grpc_port, metrics_port)
                return
        pytest.fail("the server did not start:\n" + "".join(said))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave it running."""
    folder = tmp_path_factory.mktemp("serving")
    with serving(folder, "--max-batch", MAX_BATCH, "--max-request-mib", LIMIT_MIB) as started:
        yield started
        assert started.process.poll() is None, "the server did not live to the end of the tests"


def noise(*shape: int, seed: int = 0) -> Image8:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def jpeg_bytes(pixels: Image8, form: str = "JPEG") -> bytes:
    """An image file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def grpc_tensor(name: str, values: Any) -> Any:
    """An input of a gRPC request."""
    from tritonclient import grpc
    from tritonclient.utils import np_to_triton_dtype

    tensor = grpc.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values)
    return tensor


def as_strings(files: Sequence[bytes]) -> Any:
    """Files as a batch of strings, shape (N, 1)."""
    return np.array(files, dtype=object).reshape(-1, 1)


def alive(server: Server) -> bool:
    """Whether a good request is answered."""
    body = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, HEIGHT, WIDTH, 3]}]}
    body["inputs"][0]["data"] = [7] * (HEIGHT * WIDTH * 3)  # type: ignore[index]
    return server.infer(json.dumps(body).encode())[0] == 200


def test_http_and_grpc_answer_as_the_session_does(server: Server) -> None:
    """Pixels go in by either protocol, and the session's own features come out, bit for bit."""
    from tritonclient import http as http_client

    images = noise(5, HEIGHT, WIDTH, 3)
    with open_session(server.artifact, SessionOptions(threads=1)) as session:
        expected = session.run(images)
    found = server.grpc_client().infer("tiny", [grpc_tensor("images", images)]).as_numpy("f_i")
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (5, DIM)
    tensor = http_client.InferInput("images", images.shape, "UINT8")
    tensor.set_data_from_numpy(images)
    client = http_client.InferenceServerClient(f"127.0.0.1:{server.http_port}")
    np.testing.assert_array_equal(client.infer("tiny", [tensor]).as_numpy("f_i"), expected)


def test_image_files_are_answered_as_the_session_embeds_them(server: Server, tmp_path: Path) -> None:
    """Files of any size are decoded and resized by this project's code: the same features, bit for bit."""
    files = [jpeg_bytes(noise(40 + 9 * n, 30 + 5 * n, 3, seed=n)) for n in range(3)]
    files.append(jpeg_bytes(noise(20, 20, 3), "PNG"))
    for number, data in enumerate(files):
        (tmp_path / f"{number}.img").write_bytes(data)
    with open_session(server.artifact, SessionOptions(threads=1)) as session:
        expected = session.embed([str(tmp_path / f"{number}.img") for number in range(len(files))])
    answer = server.grpc_client().infer("tiny_jpeg", [grpc_tensor("jpeg", as_strings(files))])
    np.testing.assert_array_equal(answer.as_numpy("f_i"), expected)


def test_images_are_answered_by_their_cameras(tmp_path: Path) -> None:
    """With a profile pixels and files come with camids, and unknown cameras are refused with the session's words."""
    from tritonclient import grpc

    artifact = write_artifact(tmp_path / "tiny.onnx")
    cameras = write_profile(small_profile(artifact, DIM), artifact)
    images, camids = noise(4, HEIGHT, WIDTH, 3), np.array([[2], [0], [0], [2]], np.int32)
    files = [jpeg_bytes(noise(50, 40, 3, seed=seed), "PNG") for seed in range(4)]
    with open_session(artifact, SessionOptions(threads=1), cameras=cameras) as session:
        expected = session.run(images, camids.ravel().tolist())
        of_files = session.embed([EncodedImage("", data) for data in files], camids=camids.ravel().tolist())
        manifest = session.manifest
    with serving(tmp_path, "--cameras", cameras) as server:
        client = server.grpc_client()
        pixels, numbers = grpc_tensor("images", images), grpc_tensor("camid", camids)
        found = client.infer("tiny", [pixels, numbers]).as_numpy("f_i")
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        strings = grpc_tensor("jpeg", as_strings(files))
        found = client.infer("tiny_jpeg", [strings, numbers]).as_numpy("f_i")
        np.testing.assert_allclose(found, of_files, rtol=1e-5, atol=1e-5)
        unknown = grpc_tensor("camid", np.array([[2], [0], [1], [2]], np.int32))
        for model, tensor in (("tiny", pixels), ("tiny_jpeg", strings)):
            with pytest.raises(
                grpc.InferenceServerException, match="Image 2 is of camera 2, and the"
            ) as refused:
                client.infer(model, [tensor, unknown])
            assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(grpc.InferenceServerException, match="expected 2 inputs but got 1"):
            client.infer("tiny", [pixels])
        config = client.get_model_config("tiny").config
        assert manifest_from_json(config.parameters[METADATA_KEY].string_value, "served") == manifest


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"no image", "image 1: not an image that Pillow can read"),
        (b"", "image 1: the file is empty"),
        (jpeg_bytes(noise(64, 64, 3))[:300], "image 1: the image is damaged"),
        (jpeg_bytes(np.zeros((6000, 6000, 3), np.uint8), "PNG"), "image 1: 6000x6000 is too large an image"),
    ],
)
def test_a_bad_image_is_named(server: Server, bad: bytes, words: str) -> None:
    """The request that holds it is refused as invalid; others are answered."""
    from tritonclient import grpc

    good = jpeg_bytes(noise(30, 20, 3))
    client = server.grpc_client()
    with pytest.raises(grpc.InferenceServerException, match=words) as refused:
        client.infer("tiny_jpeg", [grpc_tensor("jpeg", as_strings([good, bad]))])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert len(client.infer("tiny_jpeg", [grpc_tensor("jpeg", as_strings([good]))]).as_numpy("f_i")) == 1


def test_sixteen_clients_get_their_own_answers(server: Server) -> None:
    """Under load every client gets the answers to its own images, though they are answered together."""
    requests = [noise(1 + n % 4, HEIGHT, WIDTH, 3, seed=n) for n in range(32)]
    with open_session(server.artifact, SessionOptions(threads=1)) as session:
        expected = [session.run(images) for images in requests]

    def ask(first: int) -> None:
        client = server.grpc_client()
        for turn in range(20):
            number = (first * 7 + turn) % len(requests)
            found = client.infer("tiny", [grpc_tensor("images", requests[number])], client_timeout=60)
            np.testing.assert_allclose(found.as_numpy("f_i"), expected[number], rtol=1e-5, atol=1e-6)

    with ThreadPoolExecutor(16) as clients:
        list(clients.map(ask, range(16)))
    stats = server.grpc_client().get_inference_statistics("tiny").model_stats[0]
    assert stats.execution_count < stats.inference_stats.success.count, (
        "no two requests were answered together"
    )


def with_input(dtype: str, shape: str) -> bytes:
    """A request of one input with a single value."""
    return (
        f'{{"inputs": [{{"name": "images", "datatype": "{dtype}", "shape": {shape}, "data": [1]}}]}}'.encode()
    )


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"{", {}, 400, "not JSON that can be read"),
        (b"[]", {}, 400, "not a JSON object with a list of inputs"),
        (b'{"inputs": ' + b"[" * 500_000, {}, 400, "recursion"),
        (b"{}", {}, 400, "not a JSON object with a list of inputs"),
        (with_input("UINT8", "[1, 2, 3, 3]"), {}, 500, "Shape does not match true shape of 'data'"),
        (with_input("UINT8", "[1]"), {}, 400, "unexpected shape for input 'images'"),
        (with_input("FP32", "[1, 1, 1, 1]"), {}, 400, "data-type is 'FP32', but model 'tiny' expects 'UINT8'"),
        (with_input("UINT8", "[1099511627776, 32, 16, 3]"), {}, 400, "no more than 1048576 values"),
        (with_input("UINT8", "[9223372036854775807, 32, 16, 3]"), {}, 400, "no more than 1048576 values"),
        (with_input("UINT8", "[-1, 32, 16, 3]"), {}, 400, "expected numbers from 0 up"),
        (with_input("UINT8", '"wide"'), {}, 400, "no shape of 1 to 8 numbers"),
        (with_input("UINT8", "[1], \"shape\": [9223372036854775807]"), {}, 400, "an object has a name twice"),
        (b"{}", {"Inference_Header_Content_Length": "-1"}, 400, "Inference-Header-Content-Length is '-1'"),
        (b"{}", {"Inference_Header_Content_Length": "3"}, 400, "the length of the body, 2"),
        (b"{}", {"Inference_Header_Content_Length": "9" * 5000}, 400, "the length of the body, 2"),
        (b"\0" * 2_000_000, {}, 413, "larger than the 1 MiB that this server takes"),
        (gzip.compress(b"\0" * 50_000_000), {"Content_Encoding": "gzip"}, 413, "larger than the 1 MiB"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_right_is_told_why(
    server: Server, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    """A clear error of the right kind, and the next request is answered."""
    found = server.infer(body, **headers)
    assert found[0] == status, found
    assert words in json.loads(found[1])["error"]
    assert alive(server)


def test_only_the_protocol_is_there(server: Server) -> None:
    """KServe's paths are answered; Triton's ways of loading models and of sharing memory are not."""
    assert server.ask("GET", "/v2/health/live")[0] == server.ask("GET", "/v2/health/ready")[0] == 200
    assert json.loads(server.ask("GET", "/v2/models/tiny")[1])["inputs"][0]["shape"] == [-1, HEIGHT, WIDTH, 3]
    assert json.loads(server.ask("GET", "/v2/models/tiny/config")[1])["max_batch_size"] == MAX_BATCH
    assert server.infer(with_input("UINT8", "[1]"), model="another") == (
        404,
        '{"error":"Request for unknown model: \'another\' is not found"}',
    )
    for method, path in (
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/tiny/unload"),
        ("POST", "/v2/systemsharedmemory/region/a/register"),
        ("POST", "/v2/logging"),
        ("DELETE", "/v2/models/tiny"),
        ("GET", "/v2/models/../tiny"),
    ):
        assert server.ask(method, path, b"{}")[0] == 404, path
    metrics = http.client.HTTPConnection("127.0.0.1", server.metrics_port, timeout=30)
    metrics.request("GET", "/metrics")
    assert b'nv_inference_request_success{model="tiny"' in metrics.getresponse().read()


def test_a_request_that_says_it_is_too_large_is_refused_before_it_is_sent(server: Server) -> None:
    """At once, not when as much has arrived as is taken; and the connection is not used again."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as client:
        client.sendall(
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n{"
        )
        answer = client.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 413")
    assert "connection: close" in answer.lower()
    assert alive(server)


def test_what_grpc_does_not_take(server: Server) -> None:
    """Too many images, too many bytes, another shape and other calls have errors of their own kinds."""
    from tritonclient import grpc

    client = server.grpc_client()
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny")
    for images, words in (
        (noise(MAX_BATCH + 1, HEIGHT, WIDTH, 3), f"batch-size must be <= {MAX_BATCH}"),
        (noise(1, HEIGHT, WIDTH + 1, 3), r"unexpected shape for input 'images'"),
        (noise(1000, HEIGHT, WIDTH, 3), "RESOURCE_EXHAUSTED.*larger than max"),
    ):
        with pytest.raises(grpc.InferenceServerException, match=words):
            client.infer("tiny", [grpc_tensor("images", images)])
    with pytest.raises(grpc.InferenceServerException, match="UNIMPLEMENTED"):
        client.get_model_repository_index()
    assert alive(server)


def test_a_slow_client_holds_nobody_up(server: Server) -> None:
    """A request that never becomes complete keeps its own connection and nothing else."""
    with socket.create_connection(("127.0.0.1", server.http_port)) as slow:
        slow.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
        assert alive(server)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_answers_or_refuses(tmp_path: Path, how: signal.Signals) -> None:
    """Every request gets the right answer or an error, in seconds; then the server is gone, and so is Triton.

    A request that never becomes complete is not waited for.
    """
    from tritonclient import grpc

    images = noise(4, HEIGHT, WIDTH, 3)
    counts = {"answered": 0, "refused": 0}
    lock, stopped = threading.Lock(), threading.Event()
    with (
        serving(tmp_path, "--max-batch", MAX_BATCH) as server,
        socket.create_connection(("127.0.0.1", server.http_port)) as slow,
    ):
        slow.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
        with open_session(server.artifact, SessionOptions(threads=1)) as session:
            expected = session.run(images)

        def ask() -> None:
            client = server.grpc_client()
            while not stopped.is_set():
                try:
                    found = client.infer("tiny", [grpc_tensor("images", images)], client_timeout=30)
                    np.testing.assert_allclose(found.as_numpy("f_i"), expected, rtol=1e-5, atol=1e-6)
                except grpc.InferenceServerException as error:
                    assert "UNAVAILABLE" in error.status() or "CANCELLED" in error.status(), error
                    with lock:
                        counts["refused"] += 1
                    return
                with lock:
                    counts["answered"] += 1

        with ThreadPoolExecutor(16) as clients:
            pending = [clients.submit(ask) for _ in range(16)]
            time.sleep(1.0)
            children = triton_processes(server.process.pid)
            server.process.send_signal(how)
            began = time.monotonic()
            for future in pending:
                future.result(timeout=30)
            stopped.set()
        said, _ = server.process.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert server.process.returncode == 0
    assert counts["refused"] == 16
    assert re.fullmatch(r"\d+ requests answered\n", said)
    assert counts["answered"] <= int(said.split()[0])
    assert len(children) >= 3
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def triton_processes(parent: int) -> list[int]:
    """All processes below one."""
    found = [
        int(child)
        for task in Path(f"/proc/{parent}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [*found, *(below for pid in found for below in triton_processes(pid))]


def test_nothing_is_left_when_triton_dies(tmp_path: Path) -> None:
    """If Triton ends by itself the command ends too, with status 1 and a message; so do Python processes that hang."""
    with serving(tmp_path) as server:
        triton, *pythons = triton_processes(server.process.pid)
        for pid in pythons:
            os.kill(pid, signal.SIGSTOP)
        os.kill(triton, signal.SIGKILL)
        try:
            _, said = server.process.communicate(
                timeout=30
            )  # until none of them holds its standard error open
        finally:
            for pid in pythons:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    assert server.process.returncode == 1
    assert "reidexport: Triton ended by itself (status -9); see its messages." in said


def test_a_taken_port_is_named(server: Server, tmp_path: Path) -> None:
    """A second server on the same port ends with status 2 and says which option to give."""
    artifact = write_artifact(tmp_path / "tiny.onnx")
    for kind, port in (("http", server.http_port), ("grpc", server.grpc_port)):
        ports = {"http": 0, "grpc": 0, "metrics": 0} | {kind: port}
        command = [*_MAIN, "serve", str(artifact)]
        command += [part for name, number in ports.items() for part in (f"--{name}-port", str(number))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert f"127.0.0.1:{port}: cannot listen there (Address already in use" in done.stderr
        assert f"Choose another --{kind}-port" in done.stderr


# Does what Triton's ONNX Runtime backend does, which nvidia-pytriton does not carry.
_RUNS_ONNX = """
import onnxruntime, pathlib
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        file = pathlib.Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        answers = []
        for request in requests:
            batch = pb_utils.get_input_tensor_by_name(request, "planes").as_numpy()
            features = self.session.run(["f_i"], {"planes": batch})[0]
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("f_i", features)]))
        return answers
"""


@pytest.mark.parametrize("with_profile", [False, True])
@pytest.mark.parametrize("batch", [None, 2])
def test_a_bundle_works_in_triton(tmp_path: Path, batch: int | None, with_profile: bool) -> None:
    """Triton takes every configuration and warm-up file, and the ensemble answers files as the session does."""
    from tritonclient import grpc

    from reidexport.serving.triton.repository import write_repository
    from reidexport.serving.triton.tritonserver import installed_server, tritonserver

    artifact, model = tmp_path / "net.onnx", _RUNS_ONNX
    if batch:
        write_artifact(artifact, batch)
        model = model.replace("planes", "images")
    else:
        write_normalized(artifact)
    cameras = write_profile(small_profile(artifact, DIM), artifact) if with_profile else None
    write_repository([artifact], tmp_path / "models", cameras=cameras)
    network = tmp_path / "models" / "net_onnx"
    config = (network / "config.pbtxt").read_text()
    (network / "config.pbtxt").write_text(config.replace('backend: "onnxruntime"', 'backend: "python"'))
    (network / "1" / "model.py").write_text(model)
    files = [jpeg_bytes(noise(50, 40, 3, seed=seed)) for seed in range(2)]
    paths = [tmp_path / f"{number}.jpg" for number in range(2)]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    with open_session(artifact, SessionOptions(backend="onnxruntime", threads=1), cameras=cameras) as session:
        expected = session.embed(paths, camids=[2, 0] if with_profile else None)
    with tritonserver(installed_server(), tmp_path / "models") as triton:
        client = grpc.InferenceServerClient(f"127.0.0.1:{triton.ports.grpc}")
        deadline = time.monotonic() + 60
        while not is_ready(client):
            assert triton.process.poll() is None and time.monotonic() < deadline, (
                "Triton refuses the repository"
            )
            time.sleep(0.1)
        strings = as_strings(files).ravel() if batch else as_strings(files)
        inputs = [grpc_tensor("jpeg", strings)]
        if with_profile:
            inputs.append(grpc_tensor("camid", np.array([2, 0], np.int32).reshape(strings.shape)))
        found = client.infer("net_onnx_jpeg", inputs).as_numpy("f_i")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def is_ready(client: Any) -> bool:
    """Whether a server listens and all its models are loaded."""
    from tritonclient import grpc

    try:
        return bool(client.is_server_ready())
    except grpc.InferenceServerException:
        return False
