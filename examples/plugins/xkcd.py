"""A source in thirty lines: xkcd's comics, one page of the site's JSON for each."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass

from catchment.sdk import Context, Rows, Source, Spec


class XkcdSpec(Spec):
    """Spec of the xkcd source."""

    base_url: str = "https://xkcd.com"
    """Where the comics are."""


@dataclass
class Comic:
    """One comic."""

    num: int
    title: str
    img: str
    alt: str
    year: str


class Http:
    """Gets JSON."""

    def __init__(self, spec: XkcdSpec) -> None:
        self.base_url = spec.base_url

    def get(self, path: str) -> dict[str, str]:
        with urllib.request.urlopen(f"{self.base_url}{path}", timeout=30) as response:
            found: dict[str, str] = json.load(response)
        return found


xkcd = Source("xkcd", spec=XkcdSpec, client=Http)


@xkcd.table(Comic, primary_key=["num"])
def xkcd_comics(ctx: Context[Http]) -> Rows:
    """Every comic, oldest first."""
    for num in range(1, int(ctx.client.get("/info.0.json")["num"]) + 1):
        if num != 404:  # There is none, of course.
            yield ctx.client.get(f"/{num}/info.0.json")
