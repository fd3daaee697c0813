"""gRPC in front of Triton: KServe v2's calls and no others, requests of a bounded size, and a clean stop."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from reidexport.errors import ServerError
from reidexport.serving.triton.traffic import ANSWER_TIMEOUT_S, Traffic

_SERVICE = "/inference.GRPCInferenceService/"
_INFERENCE = _SERVICE + "ModelInfer"
_READY = (_SERVICE + "ServerReady", "/grpc.health.v1.Health/Check")
_STATUS_METHODS = frozenset({
    *_READY,
    *(_SERVICE + name for name in ("ServerLive", "ModelReady", "ServerMetadata", "ModelMetadata")),
    *(_SERVICE + name for name in ("ModelConfig", "ModelStatistics")),
})  # fmt: skip
_LINGER_S = 1.0  # for requests that are not complete when the server stops


@asynccontextmanager
async def grpc_gateway(
    host: str, port: int, triton: str, max_request_bytes: int, traffic: Traffic
) -> AsyncIterator[int]:
    """Listen until the end of the block.

    Args:
        host: address to listen on.
        port: 0 for any free one.
        triton: host and port of Triton's gRPC service.
        max_request_bytes: larger requests are refused.
        traffic: what is under way.

    Yields:
        The port.
    """
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    options = [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # else two servers share a port without a word
    ]
    async with grpc.aio.insecure_channel(triton, options=unlimited) as channel:
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers([_Relay(channel, traffic)])
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        bound = server.add_insecure_port(address)
        await server.start()
        try:
            yield bound
        finally:
            await server.stop(_LINGER_S)


class _Relay(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes the bytes of a call on, and its answer or error back; other calls are not implemented."""

    def __init__(self, channel: Any, traffic: Traffic) -> None:
        self._channel, self._traffic = channel, traffic

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method == _INFERENCE:
            return grpc.unary_unary_rpc_method_handler(self._infer)
        if method not in _STATUS_METHODS:
            return None

        async def look(request: bytes, context: Any) -> bytes:
            return await self._forward(method, request, context)

        return grpc.unary_unary_rpc_method_handler(look)

    async def _infer(self, request: bytes, context: Any) -> bytes:
        try:
            with self._traffic.accepted():
                return await self._forward(_INFERENCE, request, context)
        except ServerError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise

    async def _forward(self, method: str, request: bytes, context: Any) -> bytes:
        remaining = context.time_remaining()
        timeout = ANSWER_TIMEOUT_S if remaining is None else min(ANSWER_TIMEOUT_S, remaining)
        try:
            answer: bytes = await self._channel.unary_unary(method)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
            raise
        return answer
