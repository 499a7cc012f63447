"""Where telemetry goes: what the environment and the config ask for. Nothing is exported that nobody asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from catchment.errors import SpecError

Signal: TypeAlias = Literal["traces", "metrics", "logs"]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
ENDPOINT = "OTEL_ENDPOINT"
"""As upstream has it, which sends logs only."""
INSECURE = "OTEL_ENDPOINT_INSECURE"
_STANDARD = "OTEL_EXPORTER_OTLP"
"""What the variables begin with that every program with OpenTelemetry reads."""
_PROTOCOL = "http/protobuf"
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False, "": False}


@dataclass(frozen=True, slots=True)
class Collector:
    """Something that takes OTLP over HTTP."""

    urls: Mapping[Signal, str]
    """What is sent, and where to; no URL where the exporter takes it from the environment itself."""
    shown: str
    """What messages call it."""
    by_name: bool = True
    """Whether it was catchment that was asked to export, rather than every program on the machine."""


def from_environment(environment: Mapping[str, str]) -> Collector | None:
    """The collector that the environment names; None for none. Raises `SpecError` for values that cannot be."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    wanted = [each for each in SIGNALS if environment.get(f"OTEL_{each.upper()}_EXPORTER", "").lower() != "none"]
    address = environment.get(ENDPOINT, "")
    if address:
        found = at(address, insecure=_boolean(environment.get(INSECURE, "")), what=f"`{ENDPOINT}`")
        return Collector({each: found.urls[each] for each in wanted}, found.shown) if wanted else None
    everywhere = environment.get(f"{_STANDARD}_ENDPOINT", "")
    own = {each: environment.get(f"{_STANDARD}_{each.upper()}_ENDPOINT", "") for each in wanted}
    asked = [each for each in wanted if own[each] or everywhere]
    if not asked:
        return None
    return Collector(dict.fromkeys(asked, ""), _host(everywhere or own[asked[0]]), by_name=False)


def other_protocol(environment: Mapping[str, str], collector: Collector) -> str:
    """The protocol that the environment wants a signal sent by, where that is none of ours; empty for none."""
    if collector.by_name:
        return ""
    general = environment.get(f"{_STANDARD}_PROTOCOL") or _PROTOCOL
    wanted = [environment.get(f"{_STANDARD}_{each.upper()}_PROTOCOL") or general for each in collector.urls]
    return next((protocol for protocol in wanted if protocol != _PROTOCOL), "")


def keys(environment: Mapping[str, str]) -> list[str]:
    """What the headers say by which a collector knows its customers."""
    names = [f"{_STANDARD}_HEADERS", *(f"{_STANDARD}_{each.upper()}_HEADERS" for each in SIGNALS)]
    headers = [header for name in names for header in environment.get(name, "").split(",")]
    return [value.strip() for _, _, value in (header.partition("=") for header in headers) if value.strip()]


def at(address: str, *, insecure: bool, what: str) -> Collector:
    """The collector at `host:port`, or at a URL. Raises `SpecError` for what is neither; `what` names the setting."""
    base = address if "://" in address else f"{'http' if insecure else 'https'}://{address}"
    try:
        parts = urlsplit(base)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SpecError(
            f"{what}: expected host:port of an OTLP/HTTP collector, got {address!r}", hint="its port is often 4318"
        )
    return Collector({each: f"{base.rstrip('/')}/v1/{each}" for each in SIGNALS}, _host(base))


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise SpecError(f"`{INSECURE}`: expected true or false, got {text!r}")
    return _BOOLEANS[text.lower()]


def _host(url: str) -> str:
    """Host and port of a URL, without a password that stands in it."""
    return urlsplit(url).netloc.rpartition("@")[2] or url
