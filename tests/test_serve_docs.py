"""What ``docs/serve.md`` shows runs, and what it says of flags, paths, parameters and limits is so."""

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra [serve]")

import torch
from torch import nn

from serve_toys import encoded, photo
from upright.cli import main
from upright.integrations import LoadedModel, SquarePreprocess
from upright.serve import Limits, create_app
from upright.serve.pictures import _SCANS, FORMATS
from upright.serve.refused import RefusedError

PAGE = (Path(__file__).parents[1] / "docs" / "serve.md").read_text()
SOURCES = "".join(f.read_text() for f in Path(create_app.__code__.co_filename).parent.glob("*.py"))


def test_python_runs(capsys):
    torch.manual_seed(0)
    model = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(12, 9))
    names = {"loaded": LoadedModel(model.eval(), SquarePreprocess(32)), "photo_bytes": encoded(photo())}
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "serve.md", "exec"), names)
    assert re.fullmatch(r"\d (0|90|180|270)\.0 0\.\d+\n", capsys.readouterr().out)
    paths = {route for route in names["app"].openapi()["paths"]} | {"/openapi.json", "/docs"}
    shown = re.findall(
        r"`(?:GET |POST )?(/[\w/.]+)`", PAGE.partition("| path |")[2].partition("| parameter |")[0]
    )
    assert set(shown) == paths - {"/api/examples/{name}"}
    post = names["app"].openapi()["paths"]["/api/predict"]["post"]
    rows = PAGE.partition("| parameter |")[2].partition("Answers are in the frame")[0]
    assert {p["name"] for p in post["parameters"]} == set(re.findall(r"`(\w+)`", rows)) - {"false", "true"}


def test_commands_exist(capsys):
    commands = re.findall(r"^    upright serve(.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 6
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    flags = {flag for line in [*commands, PAGE] for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
    assert flags - {"--data-binary"} <= set(re.findall(r"--[a-z-]+", shown))


def test_limits_and_codes_are_so():
    limits = Limits()
    assert f"more than {limits.max_bytes // 2**20} MiB, {limits.max_pixels // 10**6} megapixels" in PAGE
    assert f"{_SCANS} scans" in PAGE
    assert f"the body takes more than {limits.read_seconds:g} s" in PAGE
    assert f"the model takes more than {limits.max_seconds:g} s" in PAGE
    assert f"at most {limits.uploads} bodies are on their way, {limits.connections} connections open" in PAGE
    assert all(form in PAGE.upper() for form in FORMATS)
    made = set(re.findall(r"RefusedError\(\s*(\d+),\s*\"(\w+)\"", SOURCES))
    rows = re.findall(r"^\| (\d{3}) \| (`.*?`) \|", PAGE, re.MULTILINE)
    told = {(status, code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert told == made - {("404", "not_found"), ("500", "failed")}
    assert RefusedError(503, "busy", "wait", retry_after=2).headers == {"Retry-After": "2"}
