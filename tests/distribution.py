"""Try wheel and sdist as a newcomer gets them: ``distribution.py DIST VENV`` (see ``make dist-check``).

Nothing of the checkout is seen: commands run in an empty folder, with the Python of an environment into which
the wheel alone, with what it asks for, was installed.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

READY_MADE = """
import torch, upright
from importlib.resources import files
assert "site-packages" in upright.__file__, upright.__file__
x = torch.rand(2, 3, 64, 64)
names = sorted(entry.name for entry in (files("upright") / "weights").iterdir())
assert set(upright.hub.READY_MADE.values()) <= set(names) and len(names) >= 2, names
for name in names:
    try:
        pose = upright.load_canonicalizer(name)(x)
        assert pose.element.shape == (2,), name
    except upright.hub.LoadError as error:  # what needs an extra says so
        assert name in upright.hub.BY_NAME and "pip install 'upright[" in str(error), error
robust = upright.adapt(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 64, 5)), "C4")
assert torch.allclose(robust(x), robust(torch.rot90(x, 1, (2, 3))), atol=1e-4)
robust.save_pretrained("saved")
print("ready-made:", ", ".join(names))
"""


def names_of(wheel):
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def check_contents(dist):
    """Check what the files hold: all of the package, its data and its licence, and nothing else."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    held = names_of(wheel)
    kept = subprocess.run(["git", "ls-files", "src/upright"], capture_output=True, text=True, check=True)
    wanted = {name.removeprefix("src/") for name in kept.stdout.splitlines()}
    info = {name for name in held if ".dist-info/" in name}
    assert held - info == wanted, sorted((held - info) ^ wanted)[:10]
    assert any(name.endswith("licenses/LICENSE") for name in info), sorted(info)
    with tarfile.open(sdist) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    lacking = {f"src/{name}" for name in wanted} | {"pyproject.toml", "README.md", "LICENSE"}
    assert lacking <= packed, sorted(lacking - packed)[:10]
    size = wheel.stat().st_size / 2**20
    assert size < 20, f"the wheel has {size:.1f} MiB"
    print(f"{wheel.name}: {len(held)} files, {size:.1f} MiB")


def main(dist, environment):
    dist, environment = Path(dist).resolve(), Path(environment).resolve()
    check_contents(dist)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ["python", "-c", READY_MADE],
            ["python", "-m", "upright.cli", "--version"],
            ["upright", "info", "saved"],
            ["upright", "demo", "--quick", "--output", "demo"],
        ):
            path = str(environment / "bin" / command[0])
            subprocess.run([path, *command[1:]], cwd=folder, env=clean, check=True)
        assert list(Path(folder, "demo").iterdir())
    print("the wheel works")


if __name__ == "__main__":
    main(*sys.argv[1:])
