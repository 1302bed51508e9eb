"""The tables of the terminal as tables of the page: said once, shown twice."""

from __future__ import annotations

import itertools
from typing import Any

from markupsafe import Markup

_STYLES = {"dim": "dim", "red": "bad", "green": "good", "bold": "strong"}


def as_html(table: Any) -> Markup:
    """Return a `rich` table as a table of the page, everything in it escaped."""
    columns, heads, body = table.columns, Markup(""), Markup("")
    sides = ["" if column.justify == "left" else " class=r" for column in columns]
    if table.show_header and any(str(column.header) for column in columns):
        cells = [
            Markup("<th scope=col{}>{}</th>").format(Markup(side), _marked(column.header))
            for column, side in zip(columns, sides, strict=True)
        ]
        heads = Markup("<thead><tr>{}</tr></thead>").format(Markup("").join(cells))
    for row, values in zip(table.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        cells = [
            Markup("<{tag}{}>{}</{tag}>").format(
                Markup(side), _marked(value), tag=Markup("th scope=row" if i == 0 else "td")
            )
            for i, (value, side) in enumerate(zip(values, sides, strict=True))
        ]
        style = Markup(" class=strong") if row.style == "bold" else ""
        body += Markup("<tr{}>{}</tr>").format(style, Markup("").join(cells))
    made = Markup("<table>{}<tbody>{}</tbody></table>").format(heads, body)
    note = Markup("<p class=note>{}</p>").format(_marked(table.caption)) if table.caption else ""
    return Markup("<div class=scroll tabindex=0>{}</div>{}").format(made, note)


def title_of(table: Any) -> str:
    """Return the title of a `rich` table as plain text."""
    return str(_read(table.title).plain)


def _marked(text: Any) -> Markup:
    """Return text of `rich`, its styles as classes, its line breaks kept."""
    read = _read(text)
    edges = sorted({0, len(read), *(edge for span in read.spans for edge in (span.start, span.end))})
    made = Markup("")
    for start, end in itertools.pairwise(edges):
        covering = (str(span.style) for span in read.spans if span.start <= start and end <= span.end)
        names = [_STYLES[style] for style in covering if style in _STYLES]
        lines = Markup("<br>").join(read.plain[start:end].split("\n"))
        made += Markup("<span class={}>{}</span>").format(names[-1], lines) if names else lines
    return made


def _read(text: Any) -> Any:
    from rich.text import Text

    return text if isinstance(text, Text) else Text.from_markup(str(text), emoji=False)
