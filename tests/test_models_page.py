"""The tables of ``docs/models.md`` say what the signatures say; to write them, run this file."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from upright import Invariant
from upright.adapter.spec import kind_class
from upright.integrations.signatures import SIGNATURES, TASKS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
MARK = "<!-- tables: python tests/test_models_page.py -->\n"


def _kind(spec):
    """Say what kind an entry is, or nothing where it does not move."""
    if isinstance(spec, Mapping):
        inner = [f"{key}: {_kind(entry)}" for key, entry in spec.items() if _kind(entry)]
        return "{" + ", ".join(inner) + "}" if inner else ""
    kind = kind_class(spec)
    if not isinstance(kind, type):
        return {"features": "maps"}.get(kind.__name__, kind.__name__.strip("_").replace("_", " "))
    if issubclass(kind, Invariant):
        return ""
    settings = spec.keywords if isinstance(spec, partial) else {}
    details = [str(v) if k == "format" else k for k, v in settings.items() if v]
    return " ".join([kind.__name__.lower(), *details])


def _entries(specs):
    return ", ".join(f"`{name}` {_kind(spec)}" for name, spec in specs.items() if _kind(spec)) or "nothing"


def page():
    """Return the page with one table a task, classes that move alike in one row."""
    parts = [PAGE.read_text().partition(MARK)[0] + MARK]
    for task, rows in TASKS.items():
        parts.append(f"\n## {task}\n\n| classes | arguments that move | results that move | padding | sets |")
        parts.append("| --- | --- | --- | --- | --- |")
        alike = {}
        for name, one in rows.items():
            padding = f"`{one.padding}`" if one.padding else ""
            cells = (_entries(one.inputs), _entries(one.outputs), padding, "" if one.averages else "yes")
            alike.setdefault(cells, []).append(f"`{name}`")
        parts += [f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in alike.items()]
    return "\n".join(parts) + "\n"


def test_the_page_says_what_the_signatures_say():
    assert PAGE.read_text() == page(), "run: python tests/test_models_page.py"
    assert all(f"`{name}`" in page() for name in SIGNATURES)


if __name__ == "__main__":
    PAGE.write_text(page())
