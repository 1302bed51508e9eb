"""What an adapted model offers of the hub's interface, under the names that its mixin uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from .adapted import Adapted


class Pretrained(nn.Module):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub``, as ``huggingface_hub.ModelHubMixin``.

    The mixin's own would write files one by one beside a ``config.json``; these write `upright.hub`'s layout,
    whole or not at all.
    """

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **kwargs: Any,
    ) -> str | None:
        """Save the canonicalizers and how they are used, not the model.

        Args:
            save_directory: Where to.
            push_to_hub: Whether to upload the folder, too.
            repo_id: Where to, ``"owner/name"``; None: the folder's name.
            **kwargs: Arguments of `upright.hub.save`; with ``push_to_hub`` also those of
                `upright.hub.push_to_hub`.

        Returns:
            The address of the commit, if there is one.
        """
        from ..hub import push_to_hub as push
        from ..hub import save, upload_settings

        settings: Any = {}
        if push_to_hub:
            settings, kwargs = upload_settings(kwargs)
        folder = save(self, save_directory, **kwargs)  # type: ignore[arg-type]
        if not push_to_hub:
            return None
        return push(folder, repo_id or Path(folder).name, **settings)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        model: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> Adapted:
        """Load an adapted model: `upright.load` under the name that the hub's libraries use.

        Args:
            pretrained_model_name_or_path: A saved folder, or a hub repository ``"owner/name"``.
            model: The model; default: rebuilt from the model reference in the folder.
            **kwargs: Further arguments of `upright.load`, among them ``revision``, ``token``, ``cache_dir``,
                ``force_download`` and ``local_files_only``.
        """
        from ..hub import load

        return load(pretrained_model_name_or_path, model, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Save and upload; arguments, result and errors as for `upright.hub.push_to_hub`."""
        from ..hub import push_to_hub

        return push_to_hub(self, repo_id, **kwargs)  # type: ignore[arg-type]
