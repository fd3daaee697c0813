"""In front of Triton: KServe v2's paths and calls and no others, requests of a bounded size, and a clean stop.

Triton's own options do none of this, and over HTTP it dies of JSON that is nested deeply or states a huge shape:
docs/decisions/serving.md has what was measured.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from reidexport.serving.triton.config import Ports, ServerOptions
from reidexport.serving.triton.tritonserver import TritonProcess

_MODEL = r"/v2/models/[\w.-]+(/versions/\d+)?"
_STATUS_PATHS = re.compile(rf"/v2/?|/v2/health/(live|ready)|{_MODEL}(/ready|/config|/stats)?")
_INFERENCE_PATHS = re.compile(rf"{_MODEL}/infer")
_JSON_BYTES = "Inference-Header-Content-Length"  # how much of a body is JSON: the rest is tensors
_PASSED_ON = ("Content-Type", _JSON_BYTES)
_MAX_RANK = 8  # of a tensor

_INFERENCE_CALL = "ModelInfer"
_STATUS_CALLS = "ServerLive ServerReady ServerMetadata ModelReady ModelMetadata ModelConfig ModelStatistics"
_CALLS = {
    "inference.GRPCInferenceService": (_INFERENCE_CALL, *_STATUS_CALLS.split()),
    "grpc.health.v1.Health": ("Check",),
}

_STOPPING = "The server is stopping and takes no more requests."
_ANSWER_TIMEOUT_S = 300.0  # for Triton, of one request
_FINISH_TIMEOUT_S = 60.0  # for the requests under way when the server is to stop
_POLL_S = 0.1
_LINGER_S = 0.5  # so that clients which retry at once learn why they are refused
_UPLOAD_GRACE_S = 1.0  # for requests that are not complete then

Answer = TypeVar("Answer")


@dataclass
class Traffic:
    """The inference requests: a request is accepted when it is complete."""

    num_accepted: int = 0
    num_answered: int = 0
    stopping: bool = False

    async def answered(self, answer: Awaitable[Answer]) -> Answer:
        """Wait for the answer of a request, or its failure, and count it."""
        self.num_accepted += 1
        try:
            return await answer
        finally:
            self.num_answered += 1

    async def finish(self) -> None:
        """Refuse new requests, and wait a minute at most for the answers of the others."""
        self.stopping = True
        deadline = time.monotonic() + _FINISH_TIMEOUT_S
        while self.num_answered < self.num_accepted and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        await asyncio.sleep(_LINGER_S)


@asynccontextmanager
async def gateway(triton: TritonProcess, options: ServerOptions, traffic: Traffic) -> AsyncIterator[Ports]:
    """Listen until the end of the block; there, new requests are refused and those accepted are answered."""
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    timeout = ClientTimeout(total=_ANSWER_TIMEOUT_S)
    async with (
        ClientSession(connector=TCPConnector(limit=0), timeout=timeout) as client,
        grpc.aio.insecure_channel(f"127.0.0.1:{triton.ports.grpc}", options=unlimited) as channel,
        AsyncExitStack() as stack,
    ):

        async def answer(request: web.Request) -> web.Response:
            url = f"http://127.0.0.1:{triton.ports.http}{request.path}"
            return await _answer(request, client, url, options.max_request_bytes, traffic)

        async def metrics(_: web.Request) -> web.Response:
            return await _forward(client, "GET", f"http://127.0.0.1:{triton.ports.metrics}/metrics")

        async def listen(route: web.RouteDef, port: int) -> int:
            app = web.Application(client_max_size=options.max_request_bytes)
            app.add_routes([route])
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=_UPLOAD_GRACE_S)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, options.host, port).start()
            return int(runner.addresses[0][1])

        http_port = await listen(web.route("*", "/{path:.*}", answer), options.ports.http)
        metrics_port = await listen(web.get("/metrics", metrics), options.ports.metrics)
        server = _grpc_server(channel, options.max_request_bytes, traffic)
        host = f"[{options.host}]" if ":" in options.host else options.host
        grpc_port = server.add_insecure_port(f"{host}:{options.ports.grpc}")
        await server.start()
        stack.push_async_callback(server.stop, _UPLOAD_GRACE_S)
        stack.push_async_callback(traffic.finish)
        yield Ports(http_port, grpc_port, metrics_port)


async def _answer(
    request: web.Request, client: ClientSession, url: str, max_bytes: int, traffic: Traffic
) -> web.Response:
    """Triton's answer to a request that it should see, or the reason why it should not."""
    method, path = request.method, request.path
    if method == "GET" and _STATUS_PATHS.fullmatch(path):
        if traffic.stopping and path == "/v2/health/ready":
            return _refusal(503, _STOPPING)
        return await _forward(client, "GET", url)
    if method != "POST" or not _INFERENCE_PATHS.fullmatch(path):
        return _refusal(404, f"There is no {method} {path}; see KServe's protocol, version 2.")
    too_large = f"The request is larger than the {max_bytes >> 20} MiB that this server takes."
    if (request.content_length or 0) > max_bytes:
        return _refusal(413, too_large)
    try:
        body = await request.read()  # decompressed, where it was compressed
    except web.HTTPRequestEntityTooLarge:
        return _refusal(413, too_large)
    headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
    if problem := _malformed(body, headers.get(_JSON_BYTES), max_bytes):
        return _refusal(400, problem)
    if traffic.stopping:
        return _refusal(503, _STOPPING)
    return await traffic.answered(_forward(client, "POST", url, headers, body))


async def _forward(
    client: ClientSession, method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> web.Response:
    plain = {"Accept-Encoding": "identity"} | (headers or {})
    try:
        async with client.request(method, url, data=body or None, headers=plain) as answer:
            kept = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)
    except TimeoutError:
        return _refusal(504, "Triton did not answer in time.")
    except ClientError as error:
        return _refusal(502, f"Triton cannot be reached ({error}).")


def _malformed(body: bytes, json_bytes: str | None, max_elements: int) -> str | None:
    """What is wrong with the JSON of a request, if anything is that Triton may die of."""
    length = str(len(body)) if json_bytes is None else json_bytes
    if not (length.isdecimal() and len(length) < 20 and int(length) <= len(body)):
        return f"{_JSON_BYTES} is {length!r}, expected a number up to the length of the body, {len(body)}."
    if json_bytes == "0":
        return None  # the body is one tensor
    try:
        request = json.loads(body[: int(length)], object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return f"The request is not JSON that can be read: {error}."
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        return "The request is not a JSON object with a list of inputs."
    for tensor in request["inputs"]:
        shape = tensor.get("shape") if isinstance(tensor, dict) else None
        if not isinstance(shape, list) or not 0 < len(shape) <= _MAX_RANK:
            return f"An input has no shape of 1 to {_MAX_RANK} numbers."
        if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) > max_elements:
            return f"An input has the shape {shape}, expected numbers from 0 up, no more than {max_elements} values."
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses what Triton may read otherwise than Python does."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a name twice")
    return found


def _refusal(status: int, message: str) -> web.Response:
    """As Triton words its own; where more would be sent in vain, the connection is not used again."""
    response = web.json_response({"error": message}, status=status)
    if status in (413, 503):
        response.force_close()
    return response


def _grpc_server(channel: Any, max_bytes: int, traffic: Traffic) -> Any:
    """Passes the bytes of calls on, and their answers or errors back; other calls are not implemented."""

    def relay(service: str, name: str) -> Any:
        call = channel.unary_unary(f"/{service}/{name}")

        async def answer(request: bytes, context: Any) -> Any:
            timeout_s = min(context.time_remaining() or _ANSWER_TIMEOUT_S, _ANSWER_TIMEOUT_S)
            try:
                if name != _INFERENCE_CALL:
                    return await call(request, timeout=timeout_s)
                if traffic.stopping:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, _STOPPING)
                return await traffic.answered(call(request, timeout=timeout_s))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise

        return grpc.unary_unary_rpc_method_handler(answer)

    handlers = [
        grpc.method_handlers_generic_handler(service, {name: relay(service, name) for name in names})
        for service, names in _CALLS.items()
    ]
    options = [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # else two servers share a port without a word
    ]
    return grpc.aio.server(handlers=handlers, options=options)
