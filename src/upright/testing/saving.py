"""Whether configuration and state survive saving."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..adapter import Adapted
from ..canonicalizers import Canonicalizer
from ..kinds_space import Cloud
from .examples import example
from .tolerances import errors, require, require_true

_USE = ("mode", "top_k", "cover", "cut", "evidence", "gate", "canvas")


def assert_round_trip(
    obj: Adapted | Canonicalizer,
    path: str | os.PathLike[str],
    *,
    save: Callable[..., Any] | None = None,
    load: Callable[..., Any] | None = None,
) -> None:
    """Check that an adapted model or a canonicalizer is the same after saving and loading.

    Configuration, weights, settings and poses agree; saving changes nothing; a manifest of a later version,
    and one with an unknown key, are refused.

    Args:
        obj: What is saved.
        path: A folder that does not exist yet.
        save: ``save(obj, path)``; default: `upright.hub.save`.
        load: ``load(path) -> obj``; default: `upright.load` with the same model, or
            `upright.load_canonicalizer`.

    Raises:
        AssertionError: If something differs, or a manifest that should be refused is read.
    """
    from .. import hub

    save = save or hub.save
    if load is None:
        load = (
            (lambda p: hub.load(p, model=obj.model)) if isinstance(obj, Adapted) else hub.load_canonicalizer
        )
    canonicalizer = obj.canonicalizer if isinstance(obj, Adapted) else obj
    before = {name: tensor.clone() for name, tensor in canonicalizer.state_dict().items()}
    save(obj, path)
    _check_equal("saving changes nothing", before, canonicalizer.state_dict())
    loaded = load(path)
    require_true("the type survives", type(loaded) is type(obj), f"it became {type(loaded).__name__}")
    found = loaded.canonicalizer if isinstance(loaded, Adapted) else loaded
    _check_equal("the state survives", before, found.state_dict())
    require_true("the group survives", found.group == canonicalizer.group, f"it became {found.group}")
    for name in ("config", "size", "channels", "standardize", "estimator", "deployment_prior"):
        old, new = (_plain(getattr(c, name, None)) for c in (canonicalizer, found))
        require_true(f"{name} survives", old == new, f"{old} became {new}")
    for name in _USE if isinstance(obj, Adapted) else ():
        old, new = getattr(obj, name), getattr(loaded, name)
        require_true(f"{name} survives", old == new, f"{old} became {new}")
    _check_poses(canonicalizer, found)
    _check_refusals(Path(path), load)


def _plain(setting: Any) -> Any:
    """Return a configuration as JSON has it, where tuples are lists; anything else as it is."""
    return json.loads(json.dumps(setting.to_dict())) if hasattr(setting, "to_dict") else setting


def _check_equal(law: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    require_true(law, before.keys() == after.keys(), f"keys differ: {sorted(before.keys() ^ after.keys())}")
    for name, tensor in before.items():
        require_true(f"{law}: dtype of {name}", tensor.dtype == after[name].dtype, str(after[name].dtype))
        require(f"{law}: {name}", errors(tensor.reshape(1, -1), after[name].reshape(1, -1)), 0)


def _check_poses(old: Canonicalizer, new: Canonicalizer) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, int(getattr(old, "channels", 3)), 40, 40, generator=generator)
    if old.reads is Cloud:
        x = example(Cloud, old.group, batch=4, generator=generator).data[..., :3]
    training = old.training
    old.eval()
    new.eval()
    with torch.no_grad():
        first, second = old(x), new(x)
    old.train(training)
    require("poses survive", errors(first.element.value, second.element.value), 0, on=first.element)
    if first.log_probs is not None:
        require_true("posteriors survive", second.log_probs is not None)
        assert second.log_probs is not None
        require("posteriors survive", errors(first.log_probs, second.log_probs), 0)


def _check_refusals(folder: Path, load: Callable[..., Any]) -> None:
    """Change every manifest of the folder and require that it is refused; put it back."""
    manifests = [p for p in sorted(folder.rglob("*.json")) if "schema_version" in json.loads(p.read_text())]
    require_true("a manifest with schema_version is written", bool(manifests), f"there is none in {folder}")
    for path in manifests:
        text = path.read_text()
        data = json.loads(text)
        changes = {
            "a later schema_version": {**data, "schema_version": data["schema_version"] + 1000},
            "no schema_version": {key: entry for key, entry in data.items() if key != "schema_version"},
            "an unknown key": {**data, "no_such_key": 1},
        }
        for law, changed in changes.items():
            path.write_text(json.dumps(changed))
            try:
                load(folder)
            except Exception as error:
                require_true(f"{law} is refused with a message", bool(str(error)))
            else:
                raise AssertionError(f"{path.name} with {law} must be refused, but it was read")
            finally:
                path.write_text(text)
