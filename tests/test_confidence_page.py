"""``docs/confidence.md`` runs, and says what was measured.

    python tests/test_confidence_page.py

writes the figures into the page.
"""

import json
import re
from pathlib import Path

import torch

from adapter_toys import Classifier, small

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "confidence.md"
RECORD = ROOT / "benchmarks" / "results" / "confidence.json"
START, END = "<!-- figures: tests/test_confidence_page.py -->\n", "<!-- end of figures -->"
NAMES = {
    "photos": "ImageNet photos, EfficientNet-Lite0, `photo-c4`",
    "tiny_imagenet": "Tiny-ImageNet, EfficientNet-Lite0, `photo-c4`",
    "cifar10": "CIFAR-10, ResNet-20",
}
ROWS = ("bare", "one pass", "gate", "gate 0.9", "prior given", "prior estimated", "top_k", "weighted",
        "top_k, prior estimated")  # fmt: skip
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75)


def figures():
    """The tables of the page."""
    lines = []
    for name, found in json.loads(RECORD.read_text())["figures"].items():
        at = [found["turned"].index(share) for share in SHARES]
        heads = " | ".join(f"{100 * share:g}%" for share in SHARES)
        error = 100 * max(found["standard_error"]["one pass"])
        lines += [
            f"| {NAMES[name]} ({found['pictures']:,}; ± {error:.1f}), turned: | {heads} | passes at 5% |",
            "| --- |" + " --- |" * (len(SHARES) + 1),
        ]
        for row in ROWS:
            cells = [f"{100 * found['accuracy'][row][i]:.1f}" for i in at]
            label = {"gate": "gate 0.5", "top_k": "top_k, cover 0.9", "weighted": "weighted, cut 0.2"}.get(
                row, row
            )
            lines.append(f"| {label} | {' | '.join(cells)} | {found['passes'][row][at[1]]:.2f} |")
        shares = [f"{100 * found['prior_upright']['prior estimated'][i]:.1f}" for i in at]
        lines += [f"| *upright, as estimated* | {' | '.join(shares)} | |", ""]
        calibrated, few = found["calibration"], found["prior_from_few_5%_turned"]
        lines += [
            f"Poses right {100 * calibrated['pose_accuracy']:.1f}%, mean confidence "
            f"{100 * calibrated['mean_confidence']:.1f}%, calibration error {100 * calibrated['error']:.1f}% "
            f"(temperature refitted: {100 * calibrated['refitted_error']:.1f}%). "
            "Error of the upright share from "
            + ", ".join(f"{n} inputs: {100 * f['rms_error']:.0f} points" for n, f in few.items()) + ".",
            "",
        ]  # fmt: skip
    return "\n".join(lines)


def test_page_says_what_was_measured():
    page = PAGE.read_text()
    assert page[page.index(START) + len(START) : page.index(END)] == figures()
    assert json.loads(RECORD.read_text())["command"] in page


def test_page_runs():
    names = {
        "model": Classifier().eval(),
        "upright_pictures": torch.rand(20, 3, 16, 16),
        "inputs": torch.rand(12, 3, 16, 16),
        "labels": torch.randint(7, (20,)),
    }
    after = []
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
        after.append(dict(names))
    found = after[1]["found"]
    assert found.inputs == 12
    assert after[1]["careful"].canonicalizer.deployment_prior == found.prior
    assert after[1]["robust"].canonicalizer.deployment_prior is None
    run, model, inputs = after[2]["run"], names["model"], names["inputs"]
    assert run.gated.any()
    assert torch.equal(run.output[run.gated], model(inputs)[run.gated])
    assert not after[2]["marked"].gated.any()
    assert after[3]["smooth"].mode == "weighted"
    assert len(after[4]["curve"].turned) == 3
    assert small("C4").group == after[0]["robust"].group


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(START) + len(START)] + figures() + text[text.index(END) :])
