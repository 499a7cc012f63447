"""A text file for Prometheus' node_exporter about the last run: what it came to, and that it ran at all.

The file is replaced when a run begins, without the numbers of the run before: one that is killed leaves `running`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from catchment import __version__
from catchment.engine.result import PluginResult, Result
from catchment.errors import SpecError
from catchment.redact import Redactor
from catchment.telemetry import numbers

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

    from catchment.engine.observe import Running, Step
    from catchment.engine.source_run import SourceRun
    from catchment.spec.model import SourceConfig

INSTALL = "pip install 'catchment[prometheus]'"
OUTCOMES = ("running", "complete", "partial", "failed", "interrupted")
LAST_COMPLETE = "catchment_last_complete_run_timestamp_seconds"


class TextFile:
    """The file of `--prometheus-file`: written when a run begins and when it ends."""

    def __init__(self, path: Path, redactor: Redactor, invocation_id: str) -> None:
        """Raises `SpecError` where the package is missing."""
        try:
            import prometheus_client  # noqa: F401
        except ImportError as error:
            raise SpecError("`--prometheus-file` needs a package that is not installed", hint=INSTALL) from error
        self._path = path
        self._redactor = redactor
        self._invocation_id = invocation_id
        self._started = time.time()
        self._complete_at = self._last_complete()
        self._run: Running | None = None

    @property
    def is_read(self) -> bool:
        """Whether node_exporter looks at a file of this name."""
        return self._path.suffix == ".prom"

    def begin(self) -> None:
        """Say that a run is going on. Raises `OSError`."""
        self._write("running", None)

    def end(self) -> None:
        """Say what came of the run; one that never began, or was given up, has failed. Raises `OSError`."""
        result = self._run.result if self._run is not None and self._run.result.ended is not None else None
        self._write(result.outcome if result is not None else "failed", result)

    def began(self, run: Running) -> None:
        """Remember the run, which is asked at its end."""
        self._run = run

    def opened(self, destination: str, step: Step) -> None:
        """Nothing: the file tells of whole runs."""

    def source_began(self, source: SourceConfig, result: PluginResult) -> None:
        """Nothing."""

    def source_ended(self, source: SourceConfig, result: PluginResult, run: SourceRun | None) -> None:
        """Nothing."""

    def ended(self) -> None:
        """Nothing: the command may still fail."""

    def collect(self, outcome: str, result: Result | None) -> Iterator[GaugeMetricFamily]:
        """Everything that the file has."""
        about = {"invocation_id": self._invocation_id, "version": __version__}
        yield self._family("catchment_run_info", "The last run, always 1.", [(about, 1)])
        yield self._family(
            "catchment_run_outcome",
            "1 for what became of the last run, 0 for all else; `running` of one that is killed stays.",
            [({"outcome": each}, int(each == outcome)) for each in OUTCOMES],
        )
        yield self._family("catchment_run_start_timestamp_seconds", "When it began.", [({}, self._started)])
        if outcome != "running":
            ended = result.ended.timestamp() if result is not None and result.ended is not None else time.time()
            yield self._family("catchment_run_end_timestamp_seconds", "When it ended.", [({}, ended)])
            yield self._family("catchment_run_duration_seconds", "Time it took.", [({}, ended - self._started)])
            if outcome == "complete":
                self._complete_at = ended
        if self._complete_at:
            yield self._family(LAST_COMPLETE, "When a run was complete.", [({}, self._complete_at)])
        if result is not None:
            yield from self._parts(result)
            yield from self._tables(result)

    def _parts(self, result: Result) -> Iterator[GaugeMetricFamily]:
        for kind, parts in (("source", result.sources), ("destination", result.destinations)):
            samples = [
                ({kind: part.name, "plugin": part.plugin, "outcome": each}, int(each == part.outcome))
                for part in parts
                for each in OUTCOMES[1:]
            ]
            yield self._family(
                f"catchment_{kind}_outcome", f"1 for what became of the {kind}, 0 for all else.", samples
            )
        seconds = [({"source": part.name, "plugin": part.plugin}, part.seconds) for part in result.sources]
        yield self._family("catchment_source_duration_seconds", "Time that the source took.", seconds)

    def _tables(self, result: Result) -> Iterator[GaugeMetricFamily]:
        for number in numbers.READ:
            found = numbers.read(number, result.tables)
            samples = [({"source": source, "table": table}, value / number.scale) for (source, table), value in found]
            yield self._family(number.prometheus, number.text, samples)
        for number in numbers.WRITTEN:
            rows = numbers.written(number, result.tables)
            yield self._family(
                number.prometheus,
                number.text,
                [
                    ({"source": source, "destination": destination, "table": table}, value / number.scale)
                    for (source, destination, table), value in rows
                ],
            )

    def _family(self, name: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> GaugeMetricFamily:
        from prometheus_client.core import GaugeMetricFamily

        family = GaugeMetricFamily(name, text)
        # Files of several syncs in one folder are one page to Prometheus, where no two lines may be alike.
        own = {"sync": self._redactor.text(self._path.stem)}
        for labels, value in samples:
            family.add_sample(name, own | {key: self._redactor.text(each) for key, each in labels.items()}, value)
        return family

    def _write(self, outcome: str, result: Result | None) -> None:
        from prometheus_client import CollectorRegistry, generate_latest

        families = list(self.collect(outcome, result))

        class Collected:
            def collect(self) -> Iterable[GaugeMetricFamily]:
                return families

        registry = CollectorRegistry()
        registry.register(Collected())
        # Whoever collects the folder must see a whole file, and is another user.
        unfinished = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_bytes(generate_latest(registry))
            unfinished.chmod(0o644)
            unfinished.replace(self._path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _last_complete(self) -> float:
        """When a run was complete, as the file of the run before has it; 0 where it does not tell."""
        from prometheus_client.parser import text_string_to_metric_families

        try:
            text = self._path.read_text(encoding="utf-8")
            families = list(text_string_to_metric_families(text))
        except (OSError, ValueError):
            return 0.0
        return next((s.value for family in families if family.name == LAST_COMPLETE for s in family.samples), 0.0)
