"""``upright info``: what is installed, or what a saved folder holds."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from .terminal import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("saved", nargs="?", help="a saved folder, a ready-made canonicalizer or a hub name")


def run(args: argparse.Namespace) -> int:
    """Print."""
    if args.saved is None:
        _installation(console())
    else:
        _folder(console(), args.saved)
    return 0


def _installation(out: Any) -> None:
    import torch

    from .. import hub
    from .._version import __version__
    from ..factory import NETWORKS
    from ..integrations.models import BUILT_IN

    table = _table()
    table.add_row("upright", __version__)
    table.add_row("torch", f"{torch.__version__}, {'CUDA' if torch.cuda.is_available() else 'no GPU'}")
    table.add_row("groups", "C<n> (turns by 360°/n), D<n> (turns and flips), any n; such as C4, C8, D4")
    table.add_row("networks", ", ".join([*NETWORKS, "identity", "module:callable"]))
    table.add_row("models", ", ".join([*BUILT_IN, "a transformers name or folder", "module:callable"]))
    for extra, package in (
        ("hf", "transformers"),
        ("ocr", "rapidocr"),
        ("serve", "fastapi"),
        ("demo", "efficientnet_lite_pytorch"),
    ):
        there = importlib.util.find_spec(package) is not None
        table.add_row(
            f"extra [{extra}]", "installed" if there else f"missing: pip install 'upright[{extra}]'"
        )
    out.print(table)
    for name in hub.READY_MADE.values():
        out.print()
        _folder(out, name)
    if not hub.READY_MADE:
        out.print("no ready-made canonicalizers in this installation")


def _folder(out: Any, saved: str) -> None:
    from rich.markdown import Markdown

    from .. import hub

    path = hub.resolve(saved)
    manifest = hub.read_manifest(path)
    canonicalizer = hub.load_canonicalizer(path) if _is_plain(manifest.canonicalizer) else None
    table = _table()
    table.add_row("saved", saved)
    table.add_row("group", manifest.group)
    config = manifest.canonicalizer or {"network": f"{manifest.canonicalizer_class} (of one's own making)"}
    table.add_row("network", f"{config['network']}, thumbnails of {config.get('size')} pixels")
    if canonicalizer is not None:
        table.add_row("parameters", f"{sum(p.numel() for p in canonicalizer.parameters()):,}")
    table.add_row("size", f"{sum(f.stat().st_size for f in path.iterdir() if f.is_file()) / 1024:.0f} KiB")
    for key, value in manifest.state.items():
        table.add_row(key.replace("_", " "), "none" if value is None else str(value))
    for key, value in manifest.adapter.items():
        table.add_row(key.replace("_", " "), "default" if value is None else str(value))
    if manifest.others:
        table.add_row("used by default", manifest.name)
    for name in manifest.others:
        one = manifest.of(name, str(path / hub.MANIFEST))
        network = (one.canonicalizer or {}).get("network", one.canonicalizer_class)
        table.add_row(f"also {name}", f"{one.group}, {network}, mode {one.adapter.get('mode')}")
    model = manifest.model or {}
    table.add_row("model", str(model.get("reference") or model.get("class") or "any"))
    for key, value in (model.get("preprocess") or {}).items():
        table.add_row(f"its {key}", str(value))
    table.add_row("written by", f"upright {manifest.library_version}, schema {manifest.schema_version}")
    out.print(table)
    card = _card(path / hub.CARD)
    if card:
        out.print(Markdown(card))


def _card(path: Path) -> str:
    """Return what was added to the generated card: all that follows its code block."""
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8")
    return text.partition("\n```\n")[2].strip()


def _is_plain(config: dict[str, Any] | None) -> bool:
    return config is not None and ":" not in str(config.get("network", ""))


def _table() -> Any:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table
