"""HTML elements as text: what is not HTML already is escaped, so that no name or error can break out of its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

LONGEST_TEXT = 2_000
"""Characters of an error that are shown; `catchment runs show --output json` has all of them."""
_VOID = frozenset({"meta", "input"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *inner: str, **attributes: str | bool | None) -> Html:
    """An element; in the names of attributes `_` stands for `-`, and `class_` for `class`. False and None leave out."""
    words = [name]
    for key, value in attributes.items():
        word = key.removesuffix("_").replace("_", "-")
        if value is True:
            words.append(word)
        elif value is not None and value is not False:
            words.append(f'{word}="{escape(value)}"')
    opened = f"<{' '.join(words)}>"
    return Html(opened if name in _VOID else f"{opened}{join(inner)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Parts one after the other, with what is no HTML escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def section(title: str, *inner: str, id_: str) -> Html:
    """A part of the page below a heading."""
    return tag("section", tag("h2", title), *inner, id=id_)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], class_: str | None = None) -> Html:
    """A table of cells."""
    cells = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    heads = tag("thead", tag("tr", *(tag("th", name) for name in head)))
    return tag("div", tag("table", heads, tag("tbody", *cells), class_=class_), class_="scroll")


def folded(summary: str, *inner: str) -> Html:
    """Something that is shown when its summary is clicked."""
    return tag("details", tag("summary", summary), *inner)


def badge(word: str, tone: str) -> Html:
    """A word with a colour: `good`, `warn`, `bad` or `dim`."""
    return tag("span", word, class_=f"badge {tone}")


def shortened(text: str) -> str:
    """`text`, cut where it is too long for a page."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text):,} characters)"


def size(count: int) -> str:
    """Bytes for people, such as `12.3 MB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.3g} {unit}"
    return f"{value / 1000:,.3g} TB"


def span(seconds: float) -> str:
    """Seconds for people: `0.25 s`, `12.5 s`, `1m5s`."""
    from catchment.cli.report import go_duration

    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s" if seconds < 60 else go_duration(round(seconds))
