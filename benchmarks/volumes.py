"""Volumes: which of 48 ways a scan lies, found and undone; what is exact; files with their affine updated.

The anatomy is made up (`upright.data.phantoms`): ellipsoids in place of organs, no two bodies alike, with
noise. The canonicalizer is trained here, on bodies that stand as they should, without labels.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

import upright
from benchmarks.record import parser, start, times_ms, write
from upright import act
from upright.canonicalizers import Canonicalizer, VolumeCanonicalizer
from upright.data.phantoms import phantoms
from upright.groups.octahedral import FullOctahedral
from upright.integrations.nifti import read_scan
from upright.kinds_space import LabelVolume, Volume
from upright.losses import prior_loss

GROUP = FullOctahedral()
SHAPE, OBLONG = (24, 24, 24), (21, 24, 26)


def fitted(steps: int, *, batch: int = 8, bodies: int = 256) -> tuple[Canonicalizer, dict[str, float]]:
    """A canonicalizer fitted to upright bodies; what it took, with the drawing of bodies included."""
    began, busy = time.perf_counter(), time.process_time()
    canonicalizer = VolumeCanonicalizer(GROUP, size=12).train()
    data = [phantoms(bodies, shape) for shape in (SHAPE, OBLONG)]
    optimizer = torch.optim.AdamW(canonicalizer.parameters(), 3e-3)
    for step in range(steps):
        drawn = torch.randint(bodies, (batch,))
        loss = prior_loss(canonicalizer(data[step % 2][drawn]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    spent = {"seconds": time.perf_counter() - began, "processor_seconds": time.process_time() - busy}
    return canonicalizer.eval(), {"steps": steps, **{name: round(t, 1) for name, t in spent.items()}}


@torch.no_grad()
def found(canonicalizer: Canonicalizer, volumes: Tensor) -> dict[str, float]:
    """Share of bodies whose orientation, any of 48, is found; in per cent, with a 95% interval."""
    stands = GROUP.sample(len(volumes))
    given = [act(g, Volume(v)).data for g, v in zip(stands, volumes, strict=True)]
    hits = torch.cat([canonicalizer([v]).element.equals(g) for g, v in zip(stands, given, strict=True)])
    share = float(hits.double().mean())
    n, z = len(hits), 1.96
    middle, width = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = (middle - width) / (1 + z**2 / n), (middle + width) / (1 + z**2 / n)
    return {"found": round(100 * share, 2), "low": round(100 * low, 2), "high": round(100 * high, 2), "of": n}


class Segmenter(nn.Module):
    """An arbitrary network that returns soft and hard labels; it is not equivariant."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv3d(1, 3, 3, padding=1)

    def forward(self, volume: Tensor) -> dict[str, Tensor]:
        scores = self.body(volume)
        return {"soft": scores, "labels": scores.argmax(1)}


@torch.no_grad()
def exact(canonicalizer: Canonicalizer, shapes: list[tuple[int, int, int]], count: int) -> dict[str, object]:
    """Share of bodies and orientations where ``Φ(act(g, x))`` is ``act(g, Φ(x))``, bit for bit."""
    robust = upright.adapt(
        Segmenter(), GROUP, canonicalizer=canonicalizer, outputs={"soft": "volume", "labels": "label_volume"}
    )
    same = bare = total = 0
    for shape in shapes:
        x = phantoms(count, shape)
        want, plain = robust(x), robust.model(x)
        for g in GROUP.elements():
            moved = act(g, Volume(x)).data
            for model, one, which in ((robust, want, 0), (robust.model, plain, 1)):
                got = model(moved)
                soft = (got["soft"] == act(g, Volume(one["soft"])).data).flatten(1).all(1)
                hard = (got["labels"] == act(g, LabelVolume(one["labels"])).data).flatten(1).all(1)
                hits = int((soft & hard).sum())
                same, bare = (same + hits, bare) if which == 0 else (same, bare + hits)
            total += count
    return {"compared": total, "equal": same, "share": round(same / total, 5), "bare": round(bare / total, 5)}


def restored(canonicalizer: Canonicalizer, count: int) -> dict[str, object]:
    """Write scans that are stored in any of 48 ways, find out which from the voxels, undo it, save them.

    ``worst_world_mm``: how far corners are afterwards from where they were in the world (files hold affines
    in float32).
    """
    shape, affine = OBLONG, np.diag([1.2, 1.0, 2.5, 1.0])
    affine[:3, 3] = -80.0, -95.0, 40.0
    right, worst = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scan.nii.gz"
        for i, body in enumerate(phantoms(count, shape)):
            upright_scan = read_scan(nib.Nifti1Image(body[0].numpy().T, affine))
            upright_scan.reoriented(GROUP.element(i * 5 % 48)).save(file)
            stored = read_scan(file)
            with torch.no_grad():
                pose = canonicalizer([stored.volume.data]).element[0]
            stored.reoriented(~pose).save(file)
            back = read_scan(file)
            right += torch.equal(back.volume.data, upright_scan.volume.data)
            corners = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
            for scan in (stored, back):  # whoever looks in the world sees the same
                last = torch.tensor(scan.volume.data.shape[:0:-1]) - 1
                at = scan.world(corners * last).sort(0).values
                want = upright_scan.world(corners * (torch.tensor(shape[::-1]) - 1)).sort(0).values
                worst = max(worst, float((at - want).abs().max()))
    return {"files": count, "restored_bit_for_bit": right, "worst_world_mm": float(f"{worst:.2g}")}


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    start(options)
    steps, test = (2, 4) if options.smoke else (150, 240)
    canonicalizer, spent = fitted(steps, bodies=16 if options.smoke else 256)
    x = phantoms(4, SHAPE)
    figures = {
        "training": spent,
        "orientations": {
            f"noise {noise}": found(canonicalizer, phantoms(test, SHAPE, noise=noise))
            for noise in (0.05, 0.15, 0.3)
        },
        "oblong": found(canonicalizer, phantoms(test, OBLONG)),
        "equivariance": exact(canonicalizer, [(12, 12, 12), (9, 12, 10)], 1 if options.smoke else 8),
        "files": restored(canonicalizer, 2 if options.smoke else 96),
        "ms_a_volume": round(float(np.median(times_ms(lambda: canonicalizer(x), repeats=5))) / len(x), 2),
        "parameters": sum(p.numel() for p in canonicalizer.parameters()),
    }
    write("volumes", figures, options)


if __name__ == "__main__":
    main()
