"""Chat requests with pictures, as OpenAI, Anthropic and the servers that speak like them take them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

from ..canonicalizers import Canonicalizer
from ..factory import choose_canonicalizer
from ..groups.base import Group
from .answers import PicturePose
from .blackbox import straighten_all
from .encoded import check_quality, read_encoded

Fetch = Callable[[str], bytes]


def straighten_request(
    request: Any,
    group: Group | str = "C4",
    *,
    canonicalizer: Canonicalizer | str | None = None,
    fetch: Fetch | None = None,
    quality: int | None = 95,
) -> tuple[Any, list[PicturePose | None]]:
    """Set the pictures in a chat request upright.

    Pictures are found wherever they are in the request, as ``{"type": "image_url", "image_url": {"url": …}}``
    (OpenAI chat, and most servers), ``{"type": "input_image", "image_url": "data:…"}`` (OpenAI responses) or
    ``{"type": "image", "source": {"type": "base64", "data": …}}`` (Anthropic).

    Args:
        request: The request, or its messages: dictionaries and lists; it is not changed.
        group: See `upright.adapt`.
        canonicalizer: See `upright.adapt`.
        fetch: Fetches a picture by its address, for pictures that are not in the request itself; they are
            then put into it. Default: such pictures are left alone. Nothing is ever fetched otherwise.
        quality: See `upright.black_box`: pictures that need no turning are kept bit for bit, lossless formats
            and WebP are written without loss, JPEG at this quality, with None as PNG.

    Returns:
        The new request, and the pose of every picture in the order of the request; None for pictures that
        were left alone: addresses without ``fetch``, uploaded files, and animations.

    Raises:
        ValueError: If a picture cannot be opened.
    """
    check_quality(quality)
    chosen = choose_canonicalizer(canonicalizer, group)
    return _straightened(request, chosen, fetch, quality)


class AdaptedChat:
    """A client's function for chats with pictures, made equivariant; see `adapt_chat`."""

    def __init__(
        self,
        create: Callable[..., Any],
        canonicalizer: Canonicalizer,
        fetch: Fetch | None,
        quality: int | None,
    ) -> None:
        self.create, self.canonicalizer = create, canonicalizer
        self._fetch, self._quality = fetch, quality
        update_wrapper(self, create)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send the request with upright pictures; return what the client returns."""
        return self.run(*args, **kwargs)[0]

    def run(self, *args: Any, **kwargs: Any) -> tuple[Any, list[PicturePose | None]]:
        """Send the request; return the response (as the client gives it) and the poses of the pictures."""
        (args, kwargs), poses = _straightened((args, kwargs), self.canonicalizer, self._fetch, self._quality)
        return self.create(*args, **kwargs), poses


def adapt_chat(
    create: Callable[..., Any],
    group: Group | str = "C4",
    *,
    canonicalizer: Canonicalizer | str | None = None,
    fetch: Fetch | None = None,
    quality: int | None = 95,
) -> AdaptedChat:
    """Make a chat client's function see pictures upright.

    Say ``ask = adapt_chat(client.chat.completions.create)``, or use it as a decorator. The client's
    exceptions pass through; streams and coroutines are returned as they are.

    Args:
        create: The client's function; its arguments are the request.
        group: See `straighten_request`, also for the remaining arguments.
        canonicalizer: See `straighten_request`.
        fetch: See `straighten_request`.
        quality: See `straighten_request`.

    Returns:
        A function that is called like the client's. ``.run(…)`` returns the response and the poses, by which
        coordinates in the answer are taken back: ``poses[0].restore("points", [[512, 40]], scale=1000)``.
    """
    if not callable(create):
        raise TypeError(f"create must be callable, got {type(create).__name__}")
    check_quality(quality)
    return AdaptedChat(create, choose_canonicalizer(canonicalizer, group), fetch, quality)


@dataclass(frozen=True)
class _Slot:
    """A picture in a request: where it is, and its address, a data URL or any other."""

    part: dict[str, Any]
    address: str

    def put(self, address: str) -> None:
        """Put another picture in its place, a data URL."""
        if self.part["type"] == "image":
            media_type, _, data = address.removeprefix("data:").partition(";base64,")
            self.part["source"] = {"type": "base64", "media_type": media_type, "data": data}
        elif isinstance(self.part["image_url"], dict):
            self.part["image_url"] = {**self.part["image_url"], "url": address}
        else:
            self.part["image_url"] = address


def _straightened(
    request: Any, canonicalizer: Canonicalizer, fetch: Fetch | None, quality: int | None
) -> tuple[Any, list[PicturePose | None]]:
    slots: list[_Slot | None] = []
    made = _copied(request, slots)
    pictures: dict[int, str] = {}
    for i, slot in enumerate(slots):
        address = None if slot is None else _embedded(slot.address, fetch, i)
        if address is not None and read_encoded(address, f"picture {i} of the request").is_still:
            pictures[i] = address
    poses: list[PicturePose | None] = [None] * len(slots)
    if not pictures:
        return made, poses
    upright, found = straighten_all(list(pictures.values()), canonicalizer, quality)
    for i, address, pose in zip(pictures, upright, found, strict=True):
        slot, poses[i] = slots[i], pose
        if slot is not None and address != slot.address:
            slot.put(address)
    return made, poses


def _copied(part: Any, slots: list[_Slot | None]) -> Any:
    """Copy the lists and dictionaries of a request and note its pictures; None: one that is not in it."""
    if isinstance(part, Mapping):
        made = {key: _copied(entry, slots) for key, entry in part.items()}
        if made.get("type") in ("image_url", "input_image", "image"):
            address = _address(made)
            if address is not None:
                slots.append(_Slot(made, address))
            elif made["type"] != "image" or "source" in made:
                slots.append(None)
        return made
    if isinstance(part, (list, tuple)):
        return type(part)(_copied(entry, slots) for entry in part)
    return part


def _address(part: dict[str, Any]) -> str | None:
    """Return the address of the picture in a part of a message."""
    if part["type"] == "image":
        source = part.get("source")
        if not isinstance(source, dict):
            return None
        if source.get("type") == "base64":
            return f"data:{source.get('media_type', 'image/png')};base64,{source.get('data', '')}"
        return source.get("url")
    found = part.get("image_url")
    return found.get("url") if isinstance(found, dict) else found


def _embedded(address: str, fetch: Fetch | None, number: int) -> str | None:
    """Return a picture as a data URL; None if it is elsewhere and is not to be fetched."""
    if address.startswith("data:"):
        return address
    if fetch is None:
        return None
    content = fetch(address)
    if not isinstance(content, bytes):
        raise TypeError(f"fetch must return bytes, got {type(content).__name__} for picture {number}")
    media_type = read_encoded(content, f"what fetch returned for picture {number}").media_type
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
