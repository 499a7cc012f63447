"""Requests to a registry: tried again where that may help, limited in time and size, secrets sent to nobody else."""

from __future__ import annotations

import email.utils
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity

from catchment import __version__
from catchment.errors import PluginError
from catchment.registries.watch import Watch

log = logging.getLogger("catchment.registries")

T = TypeVar("T")
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which another attempt may help."""
_LARGEST_TEXT_BYTES = 8 << 20
_TOLD_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request."""

    status: int
    text: str = ""
    """The body of an answer of 200 that was not downloaded to a file."""
    sha256: str = ""
    """Digest of what was downloaded to a file."""
    retry_after_s: float | None = None
    """How long the other side wants to be left alone."""

    @property
    def document(self) -> dict[str, Any]:
        """The text as a JSON object; empty if it is none."""
        try:
            found = json.loads(self.text or "{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Download:
    """The archive of a plugin, saved in a file."""

    url: str
    sha256: str
    told_sha256: str
    """What the registry says that its digest is; empty if it says nothing."""
    members: tuple[str, ...]
    """Names that the program may have in it."""


class _TryAgain(Exception):
    """A failure that may pass."""

    def __init__(self, error: PluginError, answer: Answer | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.answer = answer


class Web:
    """Requests for one plugin. Headers go to the host they are meant for, and not along with a redirect elsewhere."""

    def __init__(self, what: str, watch: Watch) -> None:
        self._what = what
        self._watch = watch
        limits = self._limits = watch.limits
        self._deadline = time.monotonic() + limits.total_s
        try:
            self._client = httpx.Client(
                follow_redirects=True,
                headers={"User-Agent": f"catchment/{__version__}", "Accept-Encoding": "identity"},
                timeout=httpx.Timeout(limits.stalled_s, connect=limits.connect_s),
            )
        except (OSError, ValueError, ImportError) as error:
            # Certificates that cannot be read, and proxies that it knows nothing of.
            hint = "look at the environment variables `SSL_CERT_FILE`, `HTTPS_PROXY` and `ALL_PROXY`"
            raise PluginError(f"{what}: HTTP cannot be spoken: {error}", hint=hint) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask for a text. Raises `PluginError` when nobody answers; statuses are the caller's to judge."""

        def read(response: httpx.Response) -> Answer:
            pieces: list[bytes] = []
            size = 0
            for piece in self._timed(url, response.iter_bytes()):
                size += len(piece)
                if size > _LARGEST_TEXT_BYTES:
                    raise PluginError(f"{self._what}: the answer of {shown(url)} is too long")
                pieces.append(piece)
            return Answer(response.status_code, b"".join(pieces).decode("utf-8", "replace"))

        return self._attempts(url, headers, read)

    def download(self, url: str, to: Path, headers: Mapping[str, str] | None = None) -> Answer:
        """Save what is there in the file `to`; raises as `get`, and for a download that is too large."""

        def save(response: httpx.Response) -> Answer:
            length = int(response.headers.get("Content-Length") or 0)
            self._watch.tell(f"Downloading {shown(url)}" + (f" ({_size(length)})" if length else ""))
            digest = hashlib.sha256()
            size, told = 0, time.monotonic()
            with to.open("wb") as file:
                # As it was sent, for it is to have the digest that the registry tells.
                for piece in self._timed(url, response.iter_raw()):
                    size += len(piece)
                    if size > self._limits.archive_bytes:
                        most = _size(self._limits.archive_bytes)
                        raise PluginError(f"{self._what}: {shown(url)} is larger than {most}, so it is not used")
                    file.write(piece)
                    digest.update(piece)
                    if time.monotonic() - told > _TOLD_EVERY_S:
                        told = time.monotonic()
                        self._watch.tell(f"{self._what}: {_size(size)}" + (f" of {_size(length)}" if length else ""))
            return Answer(response.status_code, sha256=digest.hexdigest())

        return self._attempts(url, headers, save)

    def _attempts(
        self, url: str, headers: Mapping[str, str] | None, take: Callable[[httpx.Response], Answer]
    ) -> Answer:
        limits, stop = self._limits, self._watch.stop
        back_off = tenacity.wait_random_exponential(limits.first_wait_s, limits.longest_wait_s)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            answer = error.answer if isinstance(error, _TryAgain) else None
            seconds = answer.retry_after_s if answer is not None and answer.retry_after_s else back_off(state)
            log.warning("%s, trying again in %.1f seconds", error, seconds)
            return seconds

        again = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(limits.attempts) | tenacity.stop_when_event_set(stop),
            wait=wait,
            retry=tenacity.retry_if_exception_type(_TryAgain),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        try:
            return again(self._attempt, url, headers or {}, take)
        except _TryAgain as last:
            if last.answer is not None:
                return last.answer
            raise last.error from last

    def _attempt(self, url: str, headers: Mapping[str, str], take: Callable[[httpx.Response], Answer]) -> Answer:
        self._check_time(url)
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                self._check_redirects(url, response)
                if response.status_code == 200:
                    return take(response)
                return self._unanswered(url, response)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
            raise self._failure(url, f"cannot be had: {error}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise _TryAgain(self._failure(url, f"cannot be had: {reason}")) from error

    def _unanswered(self, url: str, response: httpx.Response) -> Answer:
        status = response.status_code
        after = _retry_after(response.headers)
        answer = Answer(status, retry_after_s=after)
        if status in AGAIN and (after is None or after <= self._limits.longest_wait_s):
            raise _TryAgain(self._failure(url, f"answers {status}"), answer)
        return answer

    def _timed(self, url: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """A body as it comes. Raises `_TryAgain` when a part takes too long, `PluginError` when all of it does."""
        gathered, begun = 0, time.monotonic()
        for piece in pieces:
            self._check_time(url)
            gathered += len(piece)
            now = time.monotonic()
            if gathered >= self._limits.piece_bytes:
                gathered, begun = 0, now
            elif now - begun > self._limits.stalled_s:
                slow = f"is too slow: {gathered:,} bytes came in {now - begun:.0f} seconds"
                raise _TryAgain(self._failure(url, slow))
            yield piece

    def _check_time(self, url: str) -> None:
        if self._watch.stop.is_set():
            raise PluginError(f"{self._what}: broken off")
        if time.monotonic() > self._deadline:
            raise self._failure(url, f"did not arrive within {self._limits.total_s:g} seconds")

    def _check_redirects(self, url: str, response: httpx.Response) -> None:
        places = [*response.history, response]
        if urlsplit(url).scheme == "https" and any(place.url.scheme != "https" for place in places):
            raise self._failure(url, f"leads to {shown(str(response.url))}, which is not encrypted, so it is not used")

    def _failure(self, url: str, what: str) -> PluginError:
        hint = "try again, or save the plugin yourself and write `registry: local` with its path"
        return PluginError(f"{self._what}: {shown(url)} {what}", hint=hint)


def shown(url: str) -> str:
    """A URL without its query and its user, which may be secret."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "the address"
    return f"{parts.scheme}://{host}{parts.path}"


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds until another attempt: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
