"""A source in thirty lines: xkcd's comics, one page of the site's JSON for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

from catchment.sdk import Context, Rows, Source, Spec


class XkcdSpec(Spec):
    base_url: str = "https://xkcd.com"
    """Where the comics are."""


@dataclass
class Comic:
    num: int
    """Number of the comic, from 1."""
    title: str
    img: str
    year: str


def get(base_url: str, path: str) -> Any:
    with urlopen(f"{base_url}{path}/info.0.json", timeout=30) as response:
        return json.load(response)


xkcd = Source("xkcd", spec=XkcdSpec, client=lambda spec: spec.base_url)


@xkcd.table(Comic, primary_key=["num"])
def xkcd_comics(ctx: Context[str]) -> Rows:
    """Every comic, oldest first."""
    for num in range(1, get(ctx.client, "")["num"] + 1):
        if num != 404:  # There is none, of course.
            yield get(ctx.client, f"/{num}")
