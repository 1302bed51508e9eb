"""The table of CONTRIBUTING.md names every folder and file; modules import what stands further up in it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "upright"


def layers():
    """The names of the table, in order."""
    rows = re.findall(r"^\| (`[^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return [name.rstrip("/").removesuffix(".py") for row in rows for name in re.findall(r"`([^`]+)`", row)]


def statements(body):
    """The imports that run when a module loads."""
    for node in body:
        if isinstance(node, ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from statements([*node.body, *node.orelse])
        elif isinstance(node, (ast.Try, ast.With, ast.ClassDef)):
            yield from statements(node.body)


def imported(path, text):
    """The parts of the package that a module imports from, beside its own."""
    here = path.relative_to(SOURCE).parts
    for node in statements(ast.parse(text).body):
        if node.level == 0:
            continue
        above = here[: len(here) - node.level]
        named = tuple(node.module.split(".")) if node.module else ()
        for full in [above + named] if named or above else [(alias.name,) for alias in node.names]:
            if full and full[0] != here[0].removesuffix(".py"):
                yield full[0]


def upward(path, text):
    """What a module imports though it stands further down."""
    order = layers()
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return [
        name
        for name in imported(path, text)
        if not name.startswith("_") and order.index(name) >= order.index(own)
    ]


def test_the_table_is_complete():
    parts = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if not path.name.startswith("_")}
    assert parts - {"py.typed"} == set(layers())


def test_imports_run_one_way():
    wrong = {}
    for path in SOURCE.rglob("*.py"):
        if not path.relative_to(SOURCE).parts[0].startswith("_") and (up := upward(path, path.read_text())):
            wrong[str(path.relative_to(SOURCE))] = up
    assert wrong == {}


def test_a_wrong_import_is_found():
    path = SOURCE / "groups" / "finite.py"
    assert upward(path, "from ..kinds import Image") == ["kinds"]
    assert upward(path, "from .. import kinds\nfrom .base import Group") == ["kinds"]
    assert (
        upward(path, "if TYPE_CHECKING:\n    from ..kinds import Image\n\ndef f():\n    from .. import hub")
        == []
    )
    assert upward(SOURCE / "kinds.py", "from .groups import Cyclic\nfrom . import actions") == ["actions"]
