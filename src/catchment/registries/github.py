"""The registry `github`: archives that are assets of releases, found by the names that upstream's plugins use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from catchment.errors import PluginError
from catchment.registries.wanted import Wanted
from catchment.registries.web import Answer, Download, Web

URL = "https://github.com"
TOKEN = "GITHUB_TOKEN"
CHECKSUMS = "checksums.txt"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a plugin may lie."""

    repository: str
    tag: str
    asset: str
    member: str


def download(wanted: Wanted, archive: Path, web: Web) -> Download:
    """Save a plugin's archive. Raises `PluginError` with the addresses where it was looked for."""
    server = (os.environ.get("CATCHMENT_GITHUB_URL") or URL).rstrip("/")
    places = list(_places(wanted))
    for place in places:
        release = f"{server}/{place.repository}/releases/download/{quote(place.tag, safe='')}"
        url = f"{release}/{place.asset}"
        answer = web.download(url, archive)
        if answer.status == 200:
            checksums = web.get(f"{release}/{CHECKSUMS}")
            if checksums.status not in (200, 404):
                raise _refusal(wanted, checksums, has_token=False)
            told = _digest(checksums.text, place.asset)
            return Download(url, answer.sha256, told, (place.member, f"{place.member}.exe"))
        # A private repository is 404 for whoever may not see it.
        if answer.status != 404:
            raise _refusal(wanted, answer, has_token=False)
    token = os.environ.get(TOKEN, "")
    for place in places if token else ():
        found = _Private(wanted, place, web, server, token).download(archive)
        if found is not None:
            return found
    tried = " and ".join(f"{server}/{place.repository} (release {place.tag!r}, {place.asset!r})" for place in places)
    hint = "look at its path and version" + ("" if token else f", and set `{TOKEN}` if the repository is private")
    raise PluginError(f"{wanted} is not on GitHub for `{wanted.target}`; looked at {tried}", hint=hint)


class _Private:
    """A release that only the API hands out, to the owner of a token."""

    def __init__(self, wanted: Wanted, place: _Place, web: Web, server: str, token: str) -> None:
        self._wanted = wanted
        self._place = place
        self._web = web
        # A server of one's own has its API below itself: https://docs.github.com/en/enterprise-server/rest
        self._api = "https://api.github.com" if server == URL else f"{server}/api/v3"
        self._headers = {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"}

    def download(self, archive: Path) -> Download | None:
        place = self._place
        url = f"{self._api}/repos/{place.repository}/releases/tags/{quote(place.tag, safe='')}"
        answer = self._web.get(url, self._headers | {"Accept": "application/vnd.github+json"})
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise _refusal(self._wanted, answer, has_token=True)
        listed = [asset for asset in answer.document.get("assets") or [] if isinstance(asset, dict)]
        assets: Mapping[str, dict[str, Any]] = {str(asset.get("name")): asset for asset in listed}
        if place.asset not in assets:
            return None
        source = self._asset_url(assets[place.asset])
        saved = self._web.download(source, archive, self._binary)
        if saved.status != 200:
            raise _refusal(self._wanted, saved, has_token=True)
        told = str(assets[place.asset].get("digest") or "").removeprefix("sha256:")
        if CHECKSUMS in assets:
            checksums = self._web.get(self._asset_url(assets[CHECKSUMS]), self._binary)
            if checksums.status != 200:
                raise _refusal(self._wanted, checksums, has_token=True)
            told = _digest(checksums.text, place.asset) or told
        return Download(source, saved.sha256, told, (place.member, f"{place.member}.exe"))

    @property
    def _binary(self) -> dict[str, str]:
        return self._headers | {"Accept": "application/octet-stream"}

    def _asset_url(self, asset: Mapping[str, Any]) -> str:
        url = str(asset.get("url"))
        if not url.startswith(f"{self._api}/"):
            # It would get the token.
            raise PluginError(f"{self._wanted}: GitHub names an asset of another server, {url!r}")
        return url


def _places(wanted: Wanted) -> Iterator[_Place]:
    # Upstream publishes no transformers here and looks for them among the sources.
    kind = "destination" if wanted.kind == "destination" else "source"
    name, target = wanted.name, wanted.target
    own = f"cq-{kind}-{name}"
    yield _Place(f"{wanted.team}/{own}", wanted.version, f"{own}_{target}.zip", own)
    if wanted.team == "cloudquery":
        tag = f"plugins-{kind}-{name}-{wanted.version}"
        yield _Place("cloudquery/cloudquery", tag, f"{name}_{target}.zip", f"plugins/{kind}/{name}")


def _digest(checksums: str, asset: str) -> str:
    """The digest of an asset in the lines of `sha256sum`; empty if it is not there."""
    for line in checksums.splitlines():
        digest, _, name = line.strip().partition(" ")
        if name.strip().lstrip("*") == asset and len(digest) == 64:
            return digest.lower()
    return ""


def _refusal(wanted: Wanted, answer: Answer, *, has_token: bool) -> PluginError:
    match answer.status:
        case 401:
            hint = f"look at the token in `{TOKEN}`" if has_token else "try again later"
            return PluginError(f"{wanted}: GitHub does not accept who asks (401)", hint=hint)
        case 403 | 429:
            hint = (
                f"try again later, or look at what the token in `{TOKEN}` may read" if has_token else "try again later"
            )
            return PluginError(f"{wanted}: GitHub allows no more for now ({answer.status})", hint=hint)
        case status:
            return PluginError(f"{wanted}: GitHub answers {status}", hint="try again later")
