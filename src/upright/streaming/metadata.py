"""The orientation and the other metadata of encoded pictures, changed in place, without decoding a pixel.

Reference:
    TIFF 6.0, section 2 (directories of entries); Exif 2.32, sections 4.5 and 4.6 (tags, thumbnail); ISO/IEC
    10918-1, annex B (segments of a JPEG file).
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Callable, Iterator

EXIF, XMP, MULTI = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"MPF\0"
_ORIENTATION, _EXIF_IFD, _SIDES = 0x0112, 0x8769, (0xA002, 0xA003)
_THUMBNAIL_AT, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG = 3, 4
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>\s*))([1-8])")
_LONGEST = 65533

Moves = Callable[[bytes], bytes]


class MetadataError(ValueError):
    """Metadata that are damaged or do not fit their place."""


def oriented_jpeg(data: bytes, value: int) -> bytes:
    """Return a JPEG file with another EXIF orientation; every other byte stays, but where room is made.

    Raises:
        MetadataError: If its segments or its EXIF data are damaged.
    """
    out, found, start = [data[:2]], False, 2
    for marker, begin, end in _segments(data):
        content = data[begin:end]
        if marker == 0xE1 and content.startswith(EXIF) and not found:
            content, found = EXIF + oriented_tiff(content[6:], value), True
        elif marker == 0xE1 and content.startswith(XMP):
            content = _oriented_xmp(content, value)
        out.append(_segment(marker, content))
        start = end
    if not found:
        after = 2 if len(out) > 1 and out[1][1] == 0xE0 else 1  # JFIF comes first
        out.insert(after, _segment(0xE1, EXIF + oriented_tiff(_empty_tiff(), value)))
    return b"".join(out) + data[start:]


def oriented_tiff(data: bytes, value: int) -> bytes:
    """Return a TIFF file, or the TIFF block of EXIF data, with another orientation.

    The entry is overwritten; where there is none, the directory is written again at the end, with it.

    Raises:
        MetadataError: If it is damaged, or a BigTIFF file.
    """
    block = _Block(data)
    if not block.set(block.first, _ORIENTATION, value):
        block.add(_ORIENTATION, value)
    with contextlib.suppress(MetadataError):
        block.set(block.next(block.first), _ORIENTATION, value)  # that of the thumbnail
    return bytes(block.data)


def settled_tiff(data: bytes, swapped: bool, turned: Moves) -> bytes:
    """Return a TIFF block for a picture whose pixels were moved: upright, sides and thumbnail alike.

    Args:
        data: The block as it was.
        swapped: Whether width and height have changed places.
        turned: Moves an encoded thumbnail.

    Raises:
        MetadataError: If it is damaged.
    """
    block = _Block(oriented_tiff(data, 1) if _Block(data).entry_of(_ORIENTATION) else data)
    with contextlib.suppress(MetadataError):
        below = block.entry_of(_EXIF_IFD)
        if swapped and below is not None:
            block.swap(block.long(below + 8), *_SIDES)
    try:
        block.move_thumbnail(turned)
    except Exception:  # whatever is wrong with a thumbnail: better none than one on its side
        block.drop_thumbnail()
    return bytes(block.data)


def with_metadata_of(old: bytes, new: bytes, settle: Moves) -> bytes:
    """Return a JPEG file with the metadata (EXIF, XMP, ICC, IPTC, comments) of another one.

    Args:
        old: The file whose metadata are taken.
        new: The file whose picture is taken.
        settle: Makes the TIFF block that is written of the one that was there.
    """
    kept = []
    for marker, begin, end in _segments(old):
        content = old[begin:end]
        is_own = marker in (0xE0, 0xEE) or (marker == 0xE2 and content.startswith(MULTI))
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or is_own:
            continue
        if marker == 0xE1 and content.startswith(EXIF):
            with contextlib.suppress(MetadataError):
                kept.append(_segment(marker, EXIF + settle(content[6:])))
        elif marker == 0xE1 and content.startswith(XMP):
            kept.append(_segment(marker, _oriented_xmp(content, 1)))
        else:
            kept.append(_segment(marker, content))
    first = [(begin, end) for marker, begin, end in _segments(new) if marker == 0xE0]
    at = first[0][1] if first and first[0][0] == 6 else 2
    return new[:at] + b"".join(kept) + new[at:]


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Return marker, begin and end of the content of every segment before the first scan."""
    if data[:2] != b"\xff\xd8":
        raise MetadataError("no JPEG file")
    at = 2
    while True:
        if data[at : at + 1] != b"\xff":
            raise MetadataError("a segment of the JPEG file is damaged")
        while data[at + 1 : at + 2] == b"\xff":  # padding
            at += 1
        if at + 4 > len(data):
            raise MetadataError("the JPEG file ends before its picture")
        marker = data[at + 1]
        if marker == 0xDA:
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            raise MetadataError("a segment of the JPEG file is damaged")
        yield marker, at + 4, at + 2 + length
        at += 2 + length


def _segment(marker: int, content: bytes) -> bytes:
    if len(content) > _LONGEST:
        raise MetadataError("the metadata have no room left")
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def _oriented_xmp(content: bytes, value: int) -> bytes:
    return _XMP_ORIENTATION.sub(lambda found: found[1] + b"%d" % value, content)


def _empty_tiff() -> bytes:
    return b"MM\0*" + struct.pack(">IHI", 8, 0, 0)


class _Block:
    """A TIFF block: directories of entries of 12 bytes (tag, type, count, value or where it lies)."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
        if not self.order or self._read("H", 2) != 42:
            raise MetadataError("no TIFF data")
        self.first = self.long(4)

    def long(self, at: int) -> int:
        return self._read("I", at)

    def entry_of(self, tag: int, directory: int | None = None) -> int | None:
        """Return where the entry of a tag lies."""
        start = self.first if directory is None else directory
        for i in range(self._read("H", start)):
            if self._read("H", start + 2 + 12 * i) == tag:
                return start + 2 + 12 * i
        return None

    def next(self, directory: int) -> int:
        following = self.long(directory + 2 + 12 * self._read("H", directory))
        if not following:
            raise MetadataError("no further directory")
        return following

    def set(self, directory: int, tag: int, value: int) -> bool:
        """Overwrite a number; return whether there is one."""
        at = self.entry_of(tag, directory)
        if at is None:
            return False
        kind = self._read("H", at + 2)
        if kind not in (_SHORT, _LONG) or self.long(at + 4) != 1:
            raise MetadataError(f"the entry {tag:#06x} is no single number")
        self._write("H" if kind == _SHORT else "I", at + 8, value)
        return True

    def add(self, tag: int, value: int) -> None:
        """Write the first directory again, at the end, with one entry more."""
        count = self._read("H", self.first)
        start, end = self.first + 2, self.first + 2 + 12 * count
        following = self.long(end)
        entries = [bytes(self.data[at : at + 12]) for at in range(start, end, 12)]
        entries.append(struct.pack(f"{self.order}HHIHH", tag, _SHORT, 1, value, 0))
        entries.sort(key=lambda entry: struct.unpack_from(f"{self.order}H", entry)[0])
        self.data += b"\0" * (len(self.data) % 2)
        place = len(self.data)
        self.data += struct.pack(f"{self.order}H", count + 1) + b"".join(entries)
        self.data += struct.pack(f"{self.order}I", following)
        self._write("I", 4, place)
        self.first = place

    def swap(self, directory: int, one: int, other: int) -> None:
        """Let two entries change values."""
        a, b = self.entry_of(one, directory), self.entry_of(other, directory)
        if a is not None and b is not None:
            held = self.data[a + 2 : a + 12]
            self.data[a + 2 : a + 12] = self.data[b + 2 : b + 12]
            self.data[b + 2 : b + 12] = held

    def move_thumbnail(self, turned: Moves) -> None:
        """Replace the thumbnail by a moved one, at the end of the block."""
        try:
            directory = self.next(self.first)
        except MetadataError:
            return  # there is none
        at, length = (self.entry_of(t, directory) for t in (_THUMBNAIL_AT, _THUMBNAIL_LENGTH))
        if at is None or length is None:
            raise MetadataError("no JPEG thumbnail")
        begin = self.long(at + 8)
        new = turned(bytes(self.data[begin : begin + self.long(length + 8)]))
        if len(self.data) + len(new) > _LONGEST - len(EXIF):
            raise MetadataError("the metadata have no room left")
        self._write("I", at + 8, len(self.data))
        self._write("I", length + 8, len(new))
        self.data += new

    def drop_thumbnail(self) -> None:
        with contextlib.suppress(MetadataError):
            self._write("I", self.first + 2 + 12 * self._read("H", self.first), 0)

    def _read(self, kind: str, at: int) -> int:
        try:
            value: int = struct.unpack_from(self.order + kind, self.data, at)[0]
        except struct.error:
            raise MetadataError("the TIFF data point beyond their end") from None
        return value

    def _write(self, kind: str, at: int, value: int) -> None:
        try:
            struct.pack_into(self.order + kind, self.data, at, value)
        except struct.error:
            raise MetadataError("the TIFF data point beyond their end") from None


def thumbnail_of(data: bytes) -> bytes | None:
    """Return the encoded thumbnail of a TIFF block, if it has one."""
    held: list[bytes] = []
    with contextlib.suppress(MetadataError):
        _Block(data).move_thumbnail(lambda found: held.append(found) or found)  # type: ignore[func-returns-value]
    return held[0] if held else None


def is_jpeg(data: bytes) -> bool:
    """Say whether the bytes begin as a JPEG file does."""
    return io.BytesIO(data).read(3) == b"\xff\xd8\xff"
