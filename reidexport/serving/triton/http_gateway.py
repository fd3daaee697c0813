"""HTTP in front of Triton: KServe v2's paths and no others, requests of a bounded size, and a clean stop.

The server that nvidia-pytriton carries has no limit on the size of a request, and dies of JSON that is nested deeply
or states a huge shape: nothing reaches it that has not been read whole and looked at here.
"""

import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from reidexport.errors import ServerError
from reidexport.serving.triton.traffic import ANSWER_TIMEOUT_S, STOPPING, Traffic

_NAME = r"[\w.-]+"
_MODEL = rf"/v2/models/{_NAME}(/versions/\d+)?"
_STATUS_PATHS = re.compile(rf"/v2/?|/v2/health/(live|ready)|{_MODEL}(/ready|/config|/stats)?")
_INFERENCE = re.compile(rf"{_MODEL}/infer")
_JSON_BYTES = "Inference-Header-Content-Length"  # how much of a body is JSON: the rest is tensors
_PASSED_ON = ("Content-Type", _JSON_BYTES)
_MAX_RANK = 8  # of a tensor
_LINGER_S = 1.0  # for requests that are not complete when the server stops


@asynccontextmanager
async def http_gateway(
    host: str,
    port: int,
    metrics_port: int,
    triton: str,
    triton_metrics: str,
    max_request_bytes: int,
    traffic: Traffic,
) -> AsyncIterator[tuple[int, int]]:
    """Listen until the end of the block.

    Args:
        host: address to listen on.
        port: for requests; 0 for any free one.
        metrics_port: for ``/metrics``; 0 for any free one.
        triton: URL of Triton's HTTP service.
        triton_metrics: URL of its metrics.
        max_request_bytes: larger requests are refused.
        traffic: what is under way.

    Yields:
        The two ports.
    """
    connections = TCPConnector(limit=0)
    timeout = ClientTimeout(total=ANSWER_TIMEOUT_S)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(ClientSession(connector=connections, timeout=timeout))

        async def answer(request: web.Request) -> web.Response:
            return await _relay(request, client, triton, max_request_bytes, traffic)

        async def metrics(request: web.Request) -> web.Response:
            return await _forward(client, "GET", triton_metrics, {}, b"")

        requests = web.Application(client_max_size=max_request_bytes)
        requests.router.add_route("*", "/{path:.*}", answer)
        figures = web.Application()
        figures.router.add_get("/metrics", metrics)
        yield (
            await stack.enter_async_context(_listening(requests, host, port)),
            await stack.enter_async_context(_listening(figures, host, metrics_port)),
        )


@asynccontextmanager
async def _listening(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LINGER_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _relay(
    request: web.Request, client: ClientSession, triton: str, max_request_bytes: int, traffic: Traffic
) -> web.Response:
    """The answer of Triton to a request that it should see, or the reason why it should not."""
    url = triton + request.path
    if request.method == "GET" and _STATUS_PATHS.fullmatch(request.path):
        if traffic.stopping and request.path == "/v2/health/ready":
            return _refusal(503, STOPPING)
        return await _forward(client, "GET", url, {}, b"")
    if request.method != "POST" or not _INFERENCE.fullmatch(request.path):
        return _refusal(
            404, f"There is no {request.method} {request.path}; see KServe's protocol, version 2."
        )
    too_large = f"The request is larger than the {max_request_bytes >> 20} MiB that this server takes."
    if (request.content_length or 0) > max_request_bytes:
        return _refusal(413, too_large)
    try:
        body = await request.read()  # decompressed, where it was compressed
    except web.HTTPRequestEntityTooLarge:
        return _refusal(413, too_large)
    headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
    if problem := _malformed(body, headers.get(_JSON_BYTES), max_request_bytes):
        return _refusal(400, problem)
    try:
        with traffic.accepted():
            return await _forward(client, "POST", url, headers, body)
    except ServerError as error:
        return _refusal(503, str(error))


async def _forward(
    client: ClientSession, method: str, url: str, headers: dict[str, str], body: bytes
) -> web.Response:
    plain = headers | {"Accept-Encoding": "identity"}
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
    if json_bytes is not None and not (json_bytes.isdecimal() and int(json_bytes) <= len(body)):
        return (
            f"{_JSON_BYTES} is {json_bytes!r}, expected a number up to the length of the body, {len(body)}."
        )
    if json_bytes == "0":
        return None  # the body is one tensor
    try:
        request = json.loads(
            body if json_bytes is None else body[: int(json_bytes)], object_pairs_hook=_object
        )
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
    """As Triton words its own; the connection is not used again."""
    response = web.json_response({"error": message}, status=status)
    if status in (413, 503):
        response.force_close()
    return response
