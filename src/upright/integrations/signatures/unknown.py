"""What to say of a model of ``transformers`` whose class is not known."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

from ...adapter.signature import unwrapped


def check_known(model: Any) -> None:
    """Raise TypeError with the lines to write, if ``model`` is one of ``transformers``."""
    model = unwrapped(model)
    cls = type(model)
    if not any(c.__name__ == "PreTrainedModel" for c in cls.__mro__):
        return
    arguments = [name for name in inspect.signature(model.forward).parameters if name != "kwargs"]
    picture = next((n for n in arguments if n == getattr(model, "main_input_name", None)), arguments[0])
    results = _results(cls)
    returned = ", ".join(results) or "see its documentation"
    named = next((n for n in ("logits", "pooler_output", "last_hidden_state") if n in results), "logits")
    kind = "logits" if named == "logits" else "invariant"
    raise TypeError(
        f"what {cls.__name__} takes and returns is not known yet; say what moves with the picture:\n\n"
        f"    upright.adapt(\n"
        f"        model,\n"
        f'        inputs={{"{picture}": "image"}},  # it takes {", ".join(arguments)}\n'
        f'        outputs={{"{named}": "{kind}"}},  # it returns {returned}\n'
        f"    )\n\n"
        'name every "mask", "image", "boxes", "points" and "vector_field" among them; what is not named is '
        "taken to be invariant"
    )


def _results(cls: type) -> list[str]:
    """Return the names of the results by the return annotation of ``forward``."""
    try:
        found = typing.get_type_hints(cls.forward).get("return")  # type: ignore[attr-defined]
    except (NameError, TypeError, AttributeError):
        return []
    for one in (found, *typing.get_args(found)):
        if dataclasses.is_dataclass(one):
            return [field.name for field in dataclasses.fields(one)]
    return []
