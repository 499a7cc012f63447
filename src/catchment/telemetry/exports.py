"""What a run exports to: the collector of the environment, and those that its sources name."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from catchment.engine.observe import Observer
from catchment.engine.plan import Plan
from catchment.errors import SpecError
from catchment.redact import Redactor
from catchment.spec.model import Config, SourceConfig
from catchment.telemetry import collectors
from catchment.telemetry.collectors import Collector

if TYPE_CHECKING:
    from catchment.telemetry.otlp import Exporter
    from catchment.telemetry.prometheus import TextFile

log = logging.getLogger("catchment.telemetry")

INSTALL = "pip install 'catchment[otel]'"
IN_PROCESS = ("python", "grpc")
"""Registries whose sources cannot be told where to send their telemetry, so that it is sent for them."""


def from_environment(
    environment: Mapping[str, str], redactor: Redactor, invocation_id: str, warn: Callable[[str], None]
) -> Exporter | None:
    """The exporter that the environment asks for. Raises `SpecError` for wrong values, and where packages are missing.

    Variables that speak to every program on a machine are no reason to end: `warn` then says why nothing is exported.
    """
    collector = collectors.from_environment(environment)
    if collector is None:
        return None
    redactor.add(collectors.keys(environment))
    protocol = collectors.other_protocol(environment, collector)
    if protocol:
        warn(f"telemetry is not exported: it is sent as http/protobuf only, and the environment asks for {protocol!r}")
        return None
    try:
        return _exporter(collector, redactor, invocation_id)
    except SpecError as error:
        if collector.by_name:
            raise
        warn(f"telemetry is not exported: {error}")
        return None


class Exports:
    """The exporters of a run, and what the engine is given to tell them; `close` sends the rest."""

    def __init__(
        self,
        config: Config,
        redactor: Redactor,
        invocation_id: str,
        general: Exporter | None,
        warn: Callable[[str], None],
    ) -> None:
        """Raises `SpecError` for addresses that are none.

        A config of upstream's runs also without the packages: `warn` then says that nothing is exported.
        """
        self.observers: list[Observer] = []
        self._own: list[Exporter] = []
        self._logger = logging.getLogger("catchment")
        if general is not None:
            self._observe(general, None)
        for collector, sources in _collectors(config):
            try:
                exporter = _exporter(collector, redactor, invocation_id)
            except SpecError as error:
                warn(f"telemetry is not exported: {error}")
                continue
            self._own.append(exporter)
            self._observe(exporter, [source.name for source in sources])
            if exporter.handler is not None:
                exporter.handler.sources = {source.name: source.path for source in sources}
                self._logger.addHandler(exporter.handler)

    def close(self) -> list[str]:
        """Send what waits to the collectors that sources named; what did not get through."""
        for exporter in self._own:
            if exporter.handler is not None:
                self._logger.removeHandler(exporter.handler)
        if not self._own:
            return []
        # One that is away holds up none of the others.
        with ThreadPoolExecutor(len(self._own)) as pool:
            return [failure for failure in pool.map(lambda exporter: exporter.close(), self._own) if failure]

    def _observe(self, exporter: Exporter, sources: Sequence[str] | None) -> None:
        from catchment.telemetry.spans import Telemetry

        self.observers.append(Telemetry(exporter, sources))


@contextlib.contextmanager
def exporting(plan: Plan, invocation_id: str, prometheus_file: str = "") -> Iterator[list[Observer]]:
    """What a run inside another program is to tell; what cannot be told is a warning in the log.

    Raises `SpecError` as `from_environment` and `Exports` do, and for a file that cannot be written.
    """

    def warn(text: str) -> None:
        log.warning("%s", text)

    general = from_environment(os.environ, plan.redactor, invocation_id, warn)
    exports = Exports(plan.config, plan.redactor, invocation_id, general, warn)
    observers, file = exports.observers, None
    if prometheus_file:
        from catchment.telemetry.prometheus import TextFile

        file = TextFile(Path(prometheus_file), plan.redactor, invocation_id)
        observers = [*observers, file]
    logger, handler = logging.getLogger("catchment"), general.handler if general is not None else None
    if handler is not None:
        logger.addHandler(handler)
    try:
        with _written(file):
            yield observers
    finally:
        if handler is not None:
            logger.removeHandler(handler)
        for failure in [*exports.close(), general.close() if general is not None else ""]:
            if failure:
                log.warning("%s", failure)


@contextlib.contextmanager
def _written(file: TextFile | None) -> Iterator[None]:
    if file is None:
        yield
        return
    try:
        file.begin()
    except OSError as error:
        raise SpecError(f"`prometheus_file` cannot be written: {error}") from error
    try:
        yield
    finally:
        try:
            file.end()
        except OSError as error:
            log.warning("the file for Prometheus could not be written: %s", error)


def _collectors(config: Config) -> list[tuple[Collector, list[SourceConfig]]]:
    """The collectors that sources name which cannot send to them themselves, each with these sources."""
    found: dict[tuple[str, bool], tuple[Collector, list[SourceConfig]]] = {}
    for source in config.sources:
        if source.otel_endpoint and source.registry in IN_PROCESS:
            key = (source.otel_endpoint, source.otel_endpoint_insecure)
            what = f"source `{source.name}`: `otel_endpoint`"
            if key not in found:
                found[key] = (collectors.at(key[0], insecure=key[1], what=what), [])
            found[key][1].append(source)
    return list(found.values())


def _exporter(collector: Collector, redactor: Redactor, invocation_id: str) -> Exporter:
    try:
        from catchment.telemetry.otlp import Exporter
    except ImportError as error:
        raise SpecError(
            f"telemetry to {collector.shown} needs packages that are not installed", hint=INSTALL
        ) from error
    return Exporter(collector, redactor, invocation_id)
