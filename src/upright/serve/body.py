"""Bodies of requests: read within limits of size and time, into memory and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from .limits import Limits
from .refused import RefusedError

_OVERHEAD = 64 * 1024
"""What boundaries and heads of a form may add to the picture."""
_MOST_PARTS = 8
_DRAIN_SECONDS = 2.0


class Uploads:
    """Reads bodies, so many at a time.

    Args:
        limits: How large and how slow a body may be, and how many may be on their way.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._reading = limits, 0

    async def read(self, request: Request) -> bytes:
        """Return the picture that a request carries: its body, or the first file of a form.

        Raises:
            RefusedError: If it is too large (413), too slow (408), no form as it should be (400), or too many
                are on their way (503).
        """
        form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = self._limits.max_bytes + (_OVERHEAD if form else 0)
        if self._reading >= self._limits.uploads:
            raise RefusedError(
                503, "busy", "too many uploads at once; ask again in a moment", retry_after=1, close=True
            )
        self._reading += 1
        try:
            body = await asyncio.wait_for(self._collected(request, limit), self._limits.read_seconds)
            if body is None:
                await self._drained(request)
                raise self._too_large()
        except asyncio.TimeoutError:  # another class in Python 3.10
            raise RefusedError(
                408, "slow_body", f"the body took more than {self._limits.read_seconds:g} s", close=True
            ) from None
        finally:
            self._reading -= 1
        if form:
            body = file_of_form(request.headers["content-type"], body)
        if len(body) > self._limits.max_bytes:
            raise self._too_large()
        return body

    async def _collected(self, request: Request, limit: int) -> bytes | None:
        """Return the body; None if it is too large and more of it is to come."""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            return None
        body, more = bytearray(), True
        while more:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                if more:
                    return None
                raise self._too_large()
        return bytes(body)

    async def _drained(self, request: Request) -> None:
        """Read on for a moment, and forget it: clients that are still sending do not see the answer."""

        async def drain() -> None:
            rest = 2 * self._limits.max_bytes
            while rest > 0:
                message = await request.receive()
                rest -= len(message.get("body", b""))
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                if not message.get("more_body"):
                    return

        if request.headers.get("expect", "").lower() == "100-continue":
            return  # it waits to be asked
        try:
            await asyncio.wait_for(drain(), _DRAIN_SECONDS)
        except asyncio.TimeoutError:
            return

    def _too_large(self) -> RefusedError:
        most = f"{self._limits.max_bytes / 2**20:g} MiB"
        return RefusedError(
            413, "too_many_bytes", f"a picture may have {most}; send a smaller one", close=True
        )


def file_of_form(content_type: str, body: bytes) -> bytes:
    """Return the first file of a form, or its first field named ``picture``.

    Raises:
        RefusedError: If it is no form, or holds none.
    """
    options: dict[bytes, bytes] = parse_options_header(content_type)[1]
    if not options.get(b"boundary"):
        raise RefusedError(400, "bad_form", "the form has no boundary; let your client write the header")
    parts = _Parts()
    callbacks: Any = {
        "on_part_begin": parts.begin,
        "on_header_field": parts.field,
        "on_header_value": parts.value,
        "on_header_end": parts.header,
        "on_part_data": parts.data,
        "on_part_end": parts.end,
    }
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RefusedError(400, "bad_form", "the form cannot be read; send multipart/form-data") from error
    if parts.found is None:
        raise RefusedError(422, "no_picture", "the form holds no file; send one: curl -F picture=@photo.jpg")
    return parts.found


class _Parts:
    """Collects what the parser of forms calls back."""

    def __init__(self) -> None:
        self.found: bytes | None = None
        self._count, self._name, self._text = 0, b"", b""
        self._wanted, self._bytes = False, bytearray()

    def begin(self) -> None:
        self._count += 1
        if self._count > _MOST_PARTS:
            raise RefusedError(400, "bad_form", f"a form may have {_MOST_PARTS} parts")
        self._wanted, self._bytes = False, bytearray()

    def field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._text += data[start:end]

    def header(self) -> None:
        if self._name.lower() == b"content-disposition":
            options: dict[bytes, bytes] = parse_options_header(self._text)[1]
            self._wanted = b"filename" in options or options.get(b"name") == b"picture"
        self._name, self._text = b"", b""

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted and self.found is None:
            self._bytes += data[start:end]

    def end(self) -> None:
        if self._wanted and self.found is None:
            self.found = bytes(self._bytes)
