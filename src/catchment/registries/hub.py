"""The registry `cloudquery`: an API that tells where the archive of a plugin lies, and its digest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from catchment.errors import PluginError
from catchment.registries.images import KEY, image_of
from catchment.registries.wanted import Wanted
from catchment.registries.web import AGAIN, Answer, Download, Web, shown

API_URL = "https://api.cloudquery.io"
# Keys of these kinds belong to a run, and the run's environment says to which team.
_KEYS_OF_RUNS = ("cqsr_", "cqstc_", "cqpd_")


def download(wanted: Wanted, archive: Path, web: Web) -> Download | str:
    """Save a plugin's archive; or, for one that is published as a Docker image, the name of that.

    Raises `PluginError` with what to do where the hub does not hand it out.
    """
    return _Hub(wanted, web).download(archive)


class _Hub:
    """Questions about one plugin."""

    def __init__(self, wanted: Wanted, web: Web) -> None:
        self._wanted = wanted
        self._web = web
        self._api = (os.environ.get("CLOUDQUERY_API_URL") or API_URL).rstrip("/")
        self._key = os.environ.get(KEY, "")
        parts = (wanted.team, wanted.kind, wanted.name)
        self._plugin = "/plugins/" + "/".join(quote(part, safe="") for part in parts)
        self._version = f"{self._plugin}/versions/{quote(wanted.version, safe='')}"

    def download(self, archive: Path) -> Download | str:
        about = self._ask(self._version)
        if about.status in AGAIN:
            raise self._refusal(about, {})
        # Whatever else it answers, the next question is the one that counts.
        if about.document.get("package_type") == "docker":
            return image_of(self._wanted)
        team = self._own_team()
        prefix = f"/teams/{quote(team, safe='')}" if team else ""
        answer = self._ask(f"{prefix}{self._version}/assets/{self._wanted.target}")
        if answer.status != 200:
            raise self._refusal(answer, about.document)
        asset = answer.document
        url, told = asset.get("location"), asset.get("checksum") or ""
        if not isinstance(url, str) or not url or not isinstance(told, str):
            raise PluginError(f"{self._wanted}: the hub does not say where it lies", hint="try again later")
        if self._api.startswith("https:") and not url.startswith("https:"):
            raise PluginError(f"{self._wanted}: {shown(url)} is not encrypted, so it is not used")
        saved = self._web.download(url, archive)
        if saved.status != 200:
            raise PluginError(f"{self._wanted}: {shown(url)} answers {saved.status}", hint="try again later")
        name = f"plugin-{self._wanted.name}-{self._wanted.version}-{self._wanted.target.replace('_', '-')}"
        return Download(url, saved.sha256, told.lower().removeprefix("sha256:"), (name, f"{name}.exe"))

    def _ask(self, path: str) -> Answer:
        headers = {"Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return self._web.get(f"{self._api}{path}", headers)

    def _own_team(self) -> str:
        """The team that the key belongs to, which may use plugins that others may not; empty for none."""
        if not self._key:
            return ""
        if self._key.startswith(_KEYS_OF_RUNS):
            return os.environ.get("_CQ_TEAM_NAME", "")
        answer = self._ask("/teams?per_page=100")
        if answer.status != 200:
            raise self._refusal(answer, {})
        names = [team.get("name") for team in answer.document.get("items") or [] if isinstance(team, dict)]
        return names[0] if len(names) == 1 and isinstance(names[0], str) else ""

    def _refusal(self, answer: Answer, about: dict[str, Any]) -> PluginError:
        what = str(self._wanted)
        set_key = f"set `{KEY}` to a key of your team"
        match answer.status:
            case 401 if self._key:
                return PluginError(f"{what}: the hub does not accept the key in `{KEY}`", hint="make a new one")
            case 401:
                return PluginError(f"{what}: the hub wants to know who asks", hint=set_key)
            case 403:
                told = f"the team of the key in `{KEY}` may not use it" if self._key else "it is not for everyone"
                return PluginError(f"{what}: {told}", hint="ask its team" if self._key else set_key)
            case 404:
                return self._missing(about)
            case 429:
                hint = "try again later" if self._key else f"try again later, or {set_key}, which raises the limit"
                after = f" for {answer.retry_after_s:.0f} seconds" if answer.retry_after_s else ""
                return PluginError(f"{what}: the hub allows no more downloads{after}", hint=hint)
            case status:
                return PluginError(f"{what}: the hub at {shown(self._api)} answers {status}", hint="try again later")

    def _missing(self, about: dict[str, Any]) -> PluginError:
        """Why there is no such asset: no such machine, no such version, or no such plugin."""
        wanted = self._wanted
        targets = about.get("supported_targets")
        if isinstance(targets, list) and targets and wanted.target not in targets:
            listed = ", ".join(f"`{target}`" for target in sorted(map(str, targets)))
            return PluginError(f"{wanted} is not made for `{wanted.target}`", hint=f"there are {listed}")
        latest = self._ask(self._plugin).document.get("latest_version")
        if isinstance(latest, str) and latest:
            latest = f"v{latest.removeprefix('v')}"
            page = f"https://www.cloudquery.io/hub/plugins/{wanted.kind}/{wanted.team}/{wanted.name}/{latest}"
            return PluginError(
                f"{wanted.kind} plugin `{wanted.team}/{wanted.name}`: version {wanted.version} does not exist",
                hint=f"the latest is {latest}, {page}",
            )
        private = "" if self._key else f", and set `{KEY}` if it is a private one"
        return PluginError(f"{wanted} is not on the hub", hint=f"look at its path and version{private}")
