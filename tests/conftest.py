"""What all tests share: fixed seeds, and the folder of real data where there is one."""

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def generator():
    """A source of draws of the test's own."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data sets: ``$UPRIGHT_DATA``, or ``../shared/data`` beside the repository."""
    folder = Path(os.environ.get("UPRIGHT_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"no data in {folder}; set UPRIGHT_DATA to a folder that holds cifar10, imagenet1k-sample, …"
        )
    return folder


CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window: ``$CHROMIUM``, or the one that is installed."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="a browser is driven by playwright: pip install playwright"
    )
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on this machine; set CHROMIUM to one")
    playwright.expect.set_options(timeout=20_000)
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS.split())
        yield opened
        opened.close()
