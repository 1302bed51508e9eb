"""Super-resolution."""

from dataclasses import replace

from .rows import Row, make

_ROWS = [
    Row(
        "Swin2SRForImageSuperResolution",
        make(
            "Swin2SRForImageSuperResolution",
            "Swin2SRConfig",
            image_size=16,
            embed_dim=8,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
        ),
        outputs={"reconstruction": "image"},
        sizes=((16, 16), (16, 24)),
    ),
]

ROWS = [replace(row, hidden=True) for row in _ROWS]
