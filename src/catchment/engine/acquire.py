"""Have the plugins of a config on this machine before anything starts: several at once, each of them once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from catchment.engine.foreign import DOWNLOADED, pull
from catchment.engine.plan import used_destinations
from catchment.errors import CatchmentError, PluginError, Problem

if TYPE_CHECKING:
    from catchment.registries.wanted import Wanted
    from catchment.spec.model import Config, PluginConfig

log = logging.getLogger("catchment.acquire")

T = TypeVar("T")

CQ_DIR = ".cq"
"""Where plugins are kept unless somebody says otherwise."""
AT_ONCE = 4
"""Downloads that run at the same time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one plugin of a config."""

    config: PluginConfig
    is_new: bool = False
    """Whether it was downloaded now."""
    error: CatchmentError | None = None


def needed(config: Config) -> list[PluginConfig]:
    """The plugins that a run of the config starts."""
    destinations = used_destinations(config)
    names = {name for destination in destinations for name in destination.transformers}
    return [*config.sources, *destinations, *(each for each in config.transformers if each.name in names)]


def acquire(
    plugins: Iterable[PluginConfig],
    folder: str | os.PathLike[str] = CQ_DIR,
    tell: Callable[[str], None] = log.info,
    warn: Callable[[str], None] = log.warning,
) -> None:
    """Have every plugin that is downloaded in the cache below `folder`, and note in its config where it is.

    `tell` and `warn` get a line about each step, from other threads too. Raises `PluginError` that names every plugin
    that cannot be had; nothing was started.
    """
    failed = [outcome for outcome in attempt(plugins, folder, tell, warn) if outcome.error is not None]
    if failed:
        problems = [
            each.config.located(Problem(str(each.error.args[0]), path="spec.path", hint=each.error.hint))
            for each in failed
            if each.error is not None
        ]
        raise PluginError("\n".join(str(problem) for problem in problems))


def install(
    plugins: Sequence[PluginConfig],
    folder: str | os.PathLike[str],
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> list[Outcome]:
    """Have those that are downloaded in the cache, and every Docker image in its engine; what came of each."""
    outcomes = {id(outcome.config): outcome for outcome in attempt(plugins, folder, tell, warn)}
    images = [config for config in plugins if config.image]
    pulled = _all([lambda it=it: pull(it) for it in images], threading.Event())  # type: ignore[misc]
    for config, future in zip(images, pulled, strict=True):
        error = future.exception()
        is_new = id(config) in outcomes and outcomes[id(config)].is_new
        outcomes[id(config)] = Outcome(config, is_new, _known(error))
    return list(outcomes.values())


def attempt(
    plugins: Iterable[PluginConfig],
    folder: str | os.PathLike[str],
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> list[Outcome]:
    """As `acquire`, for each plugin that is downloaded what came of it."""
    downloaded = [config for config in plugins if config.registry in DOWNLOADED]
    if not downloaded:
        return []
    # Imported where it is needed: a config whose plugins run in process has nothing to fetch.
    from catchment.registries.acquire import acquire as acquire_one
    from catchment.registries.wanted import wanted
    from catchment.registries.watch import Watch

    outcomes: list[Outcome] = []
    asked: dict[Wanted, list[PluginConfig]] = {}
    for config in downloaded:
        try:
            what = wanted(config.registry, config.kind, config.path, config.version)
        except CatchmentError as error:
            outcomes.append(Outcome(config, error=error))
        else:
            asked.setdefault(what, []).append(config)
    watch = Watch(tell, warn)
    tasks = [lambda what=what: acquire_one(what, Path(folder), watch) for what in asked]
    for configs, future in zip(asked.values(), _all(tasks, watch.stop), strict=True):
        failure = _known(future.exception())
        for config in configs:
            if failure is None:
                config.place(str(future.result().program or ""), future.result().image)
            outcomes.append(Outcome(config, failure is None and future.result().is_new, failure))
    return outcomes


def _known(error: BaseException | None) -> CatchmentError | None:
    """An error that is told; a bug goes on its way."""
    if error is not None and not isinstance(error, CatchmentError):
        raise error
    return error


def _all(tasks: Sequence[Callable[[], T]], stop: threading.Event) -> list[Future[T]]:
    """Run the tasks, a few at a time, to their ends."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="acquire")
    try:
        running = [pool.submit(task) for task in tasks]
        # A wait without end might not see an interrupt that comes just before it.
        while wait(running, timeout=0.2).not_done:
            pass
        return running
    finally:
        # After an interrupt: what runs ends at its next piece, and nobody waits for it.
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
