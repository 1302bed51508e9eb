"""The application answers what the models say, refuses what is too much, and lets browsers load nothing else.

Each check of a limit was seen to fail with that limit taken out.
"""

import base64
import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra [serve]")
pytest.importorskip("httpx", reason="the client of Starlette's tests needs httpx")

from starlette.testclient import TestClient

import upright
from serve_toys import FOUND, NAMES, Corners, Finder, TopOnly, encoded, photo, preprocess, service
from upright.integrations import LoadedModel
from upright.serve import Ask, Limits, Service, create_app
from upright.serve.app import FILES
from upright.serve.examples import examples, house
from upright.serve.pictures import viewed

SMALL = Limits(max_bytes=200_000, max_pixels=10_000, workers=1)


@pytest.fixture(name="client", scope="module")
def _client():
    with TestClient(create_app(service(limits=SMALL))) as made:
        yield made


def ask(client, data, status=200, **query):
    response = client.post("/api/predict", params=query, content=data)
    assert response.status_code == status, response.text
    return response.json()


def refused(client, data, status, **query):
    return ask(client, data, status, **query)["error"]


# ---- answers


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90, 360])
def test_bare_changes_and_adapted_does_not(client, degrees):
    answer = ask(client, encoded(photo()), degrees=degrees, top=1)
    turned = degrees % 360
    assert answer["pose"]["degrees"] == turned
    assert answer["adapted"]["top"][0]["label"] == "sky"
    if turned == 180:
        assert answer["bare"]["top"][0]["label"] == "ground"
    upright_answer = ask(client, encoded(photo()), top=1)
    assert answer["adapted"]["top"] == upright_answer["adapted"]["top"]


def test_the_answer_is_that_of_the_library(client):
    picture = photo(60, 40)
    answer = ask(client, encoded(picture), degrees=90)
    robust, x = service().robust, preprocess()(picture.rotate(90, expand=True))[None]
    with torch.no_grad():
        run, bare = robust.run(x), robust.model(x)
    for side, scores in (("bare", bare), ("adapted", run.output)):
        expected = scores.softmax(-1)[0]
        found = {guess["number"]: guess["probability"] for guess in answer[side]["top"]}
        assert found == pytest.approx(dict(enumerate(expected.tolist())), abs=1e-6)
        assert [guess["label"] for guess in answer[side]["top"]] == [
            NAMES[k] for k in expected.argsort().flip(0)
        ]
    shares = [share["probability"] for share in answer["pose"]["posterior"]]
    assert shares == pytest.approx(run.pose.probs[0].tolist(), abs=1e-6)
    assert answer["pose"]["confidence"] == pytest.approx(float(run.pose.confidence[0]), abs=1e-6)
    assert (answer["width"], answer["height"]) == (40, 60)


def test_settings_of_a_request(client):
    data = encoded(photo(60, 40))
    assert len(ask(client, data, top=1)["bare"]["top"]) == 1
    assert ask(client, data, bare=False)["bare"] is None
    assert ask(client, data, square=True)["width"] == 40
    assert ask(client, data)["canonical"] is None
    flipped = ask(client, data, flip=True, degrees=30)
    assert flipped["asked"] == {"degrees": 30.0, "flip": True, "square": False}


def test_the_canonical_picture_stands_upright(client):
    answer = ask(client, encoded(photo()), degrees=90, canonical=True)
    head, _, body = answer["canonical"].partition(",")
    assert head == "data:image/jpeg;base64"
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGB")).astype(float)
    assert np.abs(pixels - np.array(photo()).astype(float)).mean() < 30
    assert pixels[:20, :, 0].mean() > 150 > pixels[-20:, :, 0].mean()


def test_forms_and_bodies_are_the_same(client):
    data = encoded(photo())
    raw = ask(client, data)
    for files in ({"picture": ("a.png", data)}, {"other": ("../../etc/passwd", data, "text/plain")}):
        form = client.post("/api/predict", files=files)
        assert form.status_code == 200
        assert form.json()["adapted"]["top"] == raw["adapted"]["top"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_formats(client, form):
    assert ask(client, encoded(photo(), form))["adapted"]["top"][0]["label"] == "sky"


def test_exif_orientation_is_applied(client):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90° counter-clockwise
    data = encoded(photo().rotate(90, expand=True), "JPEG", exif=exif)
    assert ask(client, data)["pose"]["degrees"] == 0


def test_scores_that_are_no_numbers():
    class Broken(Corners):
        def forward(self, x):
            return super().forward(x) * torch.nan

    with TestClient(create_app(service(Broken()))) as client:
        answer = ask(client, encoded(photo()))
    assert answer["bare"] == {**answer["bare"], "valid": False, "top": []}


def test_a_model_that_fails_is_a_plain_error(caplog):
    class Broken(Corners):
        def forward(self, x):
            raise RuntimeError("secret: /home/me")

    with TestClient(create_app(service(Broken()))) as client:
        error = refused(client, encoded(photo()), 500)
        assert client.get("/healthz").status_code == 200
    assert error["code"] == "failed"
    assert "secret" not in json.dumps(error)
    assert "secret" in caplog.text


# ---- masks, boxes, key points


def mask_of(reading):
    picture = Image.open(io.BytesIO(base64.b64decode(reading["mask"]["picture"].partition(",")[2])))
    return np.array(picture)[..., 3] > 0


def test_masks_follow_the_picture():
    made = service(TopOnly(), outputs="mask", task="segmentation", names=("ground", "sky"))
    for degrees in (0, 90, 180, 270):
        answer = made.answer(encoded(photo(96, 64)), Ask(degrees=degrees))
        found = mask_of(answer.adapted.model_dump())
        expected = np.rot90(np.arange(16)[:, None].repeat(16, 1) < 8, degrees // 90)
        assert np.array_equal(found, expected)
        (region,) = answer.adapted.mask.regions
        assert (region.label, region.number, region.share) == ("sky", 1, 0.5)
        box = (16.0, 0.0, 80.0, 64.0) if degrees % 180 == 0 else (0.0, 16.0, 64.0, 80.0)
        assert answer.adapted.mask.box == box
    assert not mask_of(made.answer(encoded(photo()), Ask(degrees=180)).bare.model_dump()).any()


@pytest.mark.parametrize("task", ["detection", "instances", "keypoints"])
def test_things_follow_the_picture(task):
    made = service(Finder(), outputs=FOUND, task=task, names=("", "sky"))
    boxes = {0: (8, 0, 40, 16), 90: (0, 8, 16, 40), 180: (8, 16, 40, 32), 270: (16, 8, 32, 40)}
    for degrees, box in boxes.items():  # of 48×32 the model sees the square from 8 to 40
        (thing,) = made.answer(encoded(photo(48, 32)), Ask(degrees=degrees)).adapted.things
        assert thing.box == pytest.approx(box)
        assert (thing.label, thing.number, thing.score) == ("sky", 1, pytest.approx(0.9))
        if task == "keypoints":
            assert thing.points == [pytest.approx(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))] * 17
    answer = made.answer(encoded(photo(48, 32)), Ask(degrees=180))
    assert not answer.bare.things
    if task == "instances":
        assert np.array_equal(mask_of(answer.adapted.model_dump()), np.arange(16)[:, None].repeat(16, 1) >= 8)


def test_unsure_things_are_not_shown():
    made = service(Finder(), outputs=FOUND, task="detection", threshold=0.95)
    assert made.answer(encoded(photo()), Ask()).adapted.things == []


# ---- poses of other groups


@pytest.mark.parametrize("group", ["C8", "D4", "SO2", "O2"])
def test_posteriors_of_other_groups(group):
    torch.manual_seed(0)
    robust = upright.adapt(Corners(), group, canonicalizer=upright.canonicalizer(group, size=32)).eval()
    loaded = LoadedModel(Corners(), preprocess(), NAMES)
    made = Service(robust, loaded)
    info = made.info()
    assert info.reflections == (group in ("D4", "O2"))
    assert info.poses == {"C8": [45.0 * i for i in range(8)], "D4": [0.0, 90.0, 180.0, 270.0]}.get(group)
    pose = made.answer(encoded(photo()), Ask(degrees=45, canonical=True)).pose
    assert sum(share.probability for share in pose.posterior) == pytest.approx(1, abs=1e-3)
    assert pose.continuous == (group in ("SO2", "O2"))
    assert {share.reflected for share in pose.posterior} == ({False, True} if info.reflections else {False})
    assert len(pose.posterior) <= 2 * 72


def test_groups_of_other_kinds_are_refused():
    robust = upright.adapt(Corners(), "hue12", canonicalizer=upright.canonicalizer("hue12", size=32))
    with pytest.raises(TypeError, match="hue12 does not; serve one of C<n>"):
        Service(robust, LoadedModel(Corners(), preprocess()))


def test_unknown_tasks_are_refused():
    with pytest.raises(ValueError, match="task must be one of classification, segmentation"):
        service(task="poetry")


# ---- turning


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("square", [False, True])
def test_quarter_turns_are_exact(degrees, flip, square):
    picture = photo(50, 37)
    expected = np.array(picture)[:, 6:43] if square else np.array(picture)
    expected = np.rot90(expected[:, ::-1] if flip else expected, degrees // 90)
    assert np.array_equal(np.array(viewed(picture, degrees, flip, square)), expected)


def test_other_angles_agree_with_the_groups():
    picture = photo(64, 64)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    g = upright.O2().element(degrees=30.0, reflected=True)
    expected = upright.act(g, upright.Image(pixels, border="reflect")).data.permute(1, 2, 0)
    assert np.array_equal(np.array(viewed(picture, 30, True, False)), expected.numpy())
    assert viewed(photo(4000, 30), 10, False, False).size == (1024, 8)
    assert viewed(photo(64, 40), 10, False, True).size == (40, 40)


# ---- who may ask


def test_headers_of_every_answer(client):
    for path in ("/", "/docs", "/static/app.js", "/healthz", "/api/info", "/nowhere", "/api/predict"):
        headers = client.get(path).headers
        policy = dict(
            part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_other_sites_may_not_ask(client):
    data = encoded(photo())
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        response = client.post("/api/predict", content=data, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "foreign_origin")
    same = client.post("/api/predict", content=data, headers={"Origin": "http://testserver"})
    assert same.status_code == 200


def test_hosts_are_checked():
    app = create_app(service(), hosts=("127.0.0.1", "localhost", "[::1]"))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        for host in ("127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000"):
            assert client.get("/healthz", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil:8000", "[::2]"):
            assert client.get("/healthz", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/%2e%2e/hub.py", "/static//etc/passwd",
        "/static/..\\app.py", "/api/examples/../../../../etc/passwd", "/api/examples/..%2f..%2fetc%2fpasswd",
        "/api/examples/%00", "/static/", "/static", "/page/index.html", "/.git/config",
    ],
)  # fmt: skip
def test_no_path_leads_out(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


# ---- pages and information


def test_files_ask_nobody_else(client):
    names = [f"/static/{name}" for name in FILES] + ["/", "/docs"]
    for name in names:
        response = client.get(name)
        assert response.status_code == 200
        assert not re.search(
            r"""(?:src|href|url|fetch|from|import)\W{0,3}["'(](?:https?:)?//""", response.text
        )
        assert not re.search(r"\son\w+=|javascript:|\beval\(|style=", response.text)
        again = client.get(name, headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304
    folder = Path(importlib.util.find_spec("upright.serve").origin).parent / "page"
    assert {f.name for f in folder.iterdir()} == {*FILES, "index.html", "docs.html"}


def test_information(client):
    info = client.get("/api/info").json()
    assert (info["model"], info["group"], info["task"], info["classes"]) == ("toy", "C4", "classification", 2)
    assert info["version"] == upright.__version__
    assert info["limits"]["max_pixels"] == SMALL.max_pixels
    for example in info["examples"]:
        response = client.get(f"/api/examples/{example['name']}")
        assert Image.open(io.BytesIO(response.content)).format in ("JPEG", "PNG")
    assert client.get("/healthz").json() == {"status": "ok"}


def test_description(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {"/api/predict", "/api/info", "/healthz", "/api/examples/{name}"}
    post = described["paths"]["/api/predict"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/octet-stream", "multipart/form-data"}
    assert {"200", "408", "413", "415", "422", "503", "504"} <= set(post["responses"])
    assert {p["name"] for p in post["parameters"]} == {
        "degrees",
        "flip",
        "square",
        "top",
        "bare",
        "canonical",
    }


def test_examples_are_there_without_further_packages(monkeypatch):
    assert len({example.name for example in examples()}) == len(examples()) >= 2
    assert all(re.fullmatch(r"[a-z0-9-]+", example.name) for example in examples())
    monkeypatch.setattr("upright.serve.examples.find_spec", lambda name: None)
    (only,) = examples()
    data, media = only.file()
    assert (only.name, media) == ("house", "image/jpeg")
    assert Image.open(io.BytesIO(data)).size == house().size
