"""What the services of the protocol are called, what each method takes and gives, and how a channel is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import grpc
from grpc.experimental import ChannelOptions

from catchment.wire._pb import plugin_pb2 as pb
from catchment.wire.limits import OPTIONS

PLUGIN = "cloudquery.plugin.v3.Plugin"
DISCOVERY_V1 = "cloudquery.discovery.v1.Discovery"
DISCOVERY_V0 = "cloudquery.discovery.v0.Discovery"

VERSION = 3
"""The version of the protocol that is spoken here."""

Streaming: TypeAlias = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service."""

    name: str
    request: Any
    response: Any
    streaming: Streaming = "unary_unary"
    service: str = PLUGIN


_METHODS = (
    Method("GetName", pb.GetName.Request, pb.GetName.Response),
    Method("GetVersion", pb.GetVersion.Request, pb.GetVersion.Response),
    Method("GetSpecSchema", pb.GetSpecSchema.Request, pb.GetSpecSchema.Response),
    Method("Init", pb.Init.Request, pb.Init.Response),
    Method("GetTables", pb.GetTables.Request, pb.GetTables.Response),
    Method("Sync", pb.Sync.Request, pb.Sync.Response, "unary_stream"),
    Method("Read", pb.Read.Request, pb.Read.Response, "unary_stream"),
    Method("Write", pb.Write.Request, pb.Write.Response, "stream_unary"),
    Method("Transform", pb.Transform.Request, pb.Transform.Response, "stream_stream"),
    Method("TransformSchema", pb.TransformSchema.Request, pb.TransformSchema.Response),
    Method("Close", pb.Close.Request, pb.Close.Response),
    Method("TestConnection", pb.TestConnection.Request, pb.TestConnection.Response),
)
METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}
"""The methods of the plugin service, by name."""

VERSIONS = Method("GetVersions", pb.GetVersions.Request, pb.GetVersions.Response, service=DISCOVERY_V1)
VERSION_NAMES = Method("GetVersions", pb.GetVersionNames.Request, pb.GetVersionNames.Response, service=DISCOVERY_V0)


def open_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """A channel to `host:port` or `unix:///path`; without credentials in the clear, as plugins on one machine speak."""
    # Of a stream that only comes in, the thread that reads it does all the work: a third faster for small records.
    options = (*OPTIONS, (ChannelOptions.SingleThreadedUnaryStream, 1))
    if credentials is not None:
        return grpc.secure_channel(target, credentials, options=options)
    return grpc.insecure_channel(target, options=options)


def bind(channel: grpc.Channel, method: Method) -> Callable[..., Any]:
    """What calls `method` on the other side."""
    make: Callable[..., Any] = getattr(channel, method.streaming)
    call: Callable[..., Any] = make(
        f"/{method.service}/{method.name}",
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    return call


def handlers(functions: Mapping[Method, Callable[..., Any]]) -> list[grpc.GenericRpcHandler]:
    """What a server adds to answer each of the methods with its function."""
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method, function in functions.items():
        make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = getattr(grpc, f"{method.streaming}_rpc_method_handler")
        by_service.setdefault(method.service, {})[method.name] = make(
            function,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in by_service.items()]
