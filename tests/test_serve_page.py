"""The page in a real browser: upload, slide, and the bare answer changes while the adapted one does not."""

from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra [serve]")
pytest.importorskip("playwright", reason="a browser is driven by playwright: pip install playwright")

from PIL import Image
from playwright.sync_api import Error, expect

import upright
from serve_toys import FOUND, NAMES, Corners, Finder, encoded, photo, preprocess, running, service
from upright.integrations import LoadedModel
from upright.serve import Limits, Service
from upright.serve.examples import Example
from upright.serve.pictures import viewed

PICTURES = (
    Example("sky", "Red above", lambda: photo(96, 96)),
    Example("wide", "Red above, wide", lambda: photo(120, 80, seed=1)),
    Example("turned", "Red below", lambda: photo(96, 96).rotate(180)),
)


@pytest.fixture(name="address", scope="module")
def _address():
    with running(service(pictures=PICTURES, limits=Limits(workers=2))) as (address, _):
        yield address


class Watched:
    """A page that must stay silent and must ask nobody but its server."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page, self.complaints, self.asked = self.context.new_page(), [], []
        self.page.set_default_timeout(20_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.address = address

    def __enter__(self):
        self.page.goto(self.address)
        expect(self.page.locator("#bare-bars li").first).to_be_visible(timeout=20_000)
        return self.page

    def __exit__(self, kind, *_):
        hosts = {urlsplit(url).netloc for url in self.asked if not url.startswith(("data:", "blob:"))}
        self.context.close()
        if kind is None:
            assert self.complaints == []
            assert hosts == {urlsplit(self.address).netloc}


def slide(page, degrees):
    page.locator("#degrees").evaluate(
        """(slider, value) => {
            slider.value = value;
            slider.dispatchEvent(new Event("input", {bubbles: true}));
        }""",
        degrees,
    )


def says(page, side, text):
    expect(page.locator(f"#{side}-first")).to_have_text(text)


def lies(page, text):
    expect(page.locator("#pose-angle")).to_have_text(text)


def drawn(page, selector="#stage", side=120):
    """What a canvas shows, small, as an array."""
    values = page.locator(selector).evaluate(
        """(canvas, side) => {
            const copy = document.createElement("canvas");
            copy.width = copy.height = side;
            const pen = copy.getContext("2d");
            pen.imageSmoothingQuality = "high";
            pen.drawImage(canvas, 0, 0, side, side);
            return Array.from(pen.getImageData(0, 0, side, side).data);
        }""",
        side,
    )
    return np.array(values, dtype=np.uint8).reshape(side, side, 4)[..., :3]


def test_the_bare_answer_changes_and_the_adapted_one_does_not(browser, address):
    with Watched(browser, address) as page:
        says(page, "bare", "sky")
        says(page, "adapted", "sky")
        for degrees in (180, 90, 270, 360):
            slide(page, degrees)
            expect(page.locator("#angle")).to_have_text(f"{degrees % 360}°")
            lies(page, f"{degrees % 360}°")
            says(page, "adapted", "sky")
            if degrees == 180:
                says(page, "bare", "ground")
                expect(page.locator("#pose-note")).to_contain_text("That is how you turned it")
        says(page, "bare", "sky")
        expect(page.locator("#poses li")).to_have_count(4)
        expect(page.locator("#poses li").nth(2).locator(".said.bare")).to_have_text("≠ground")
        expect(page.locator("#poses li").nth(2).locator(".said.adapted")).to_have_text("sky")
        expect(page.locator("#spoken")).to_contain_text("bare says sky; adapted says sky; pose 0°")


def test_what_is_drawn_is_what_is_sent(browser, address):
    with Watched(browser, address) as page:
        page.get_by_role("button", name="Red above, wide").click()
        lies(page, "0°")
        for degrees in (0, 37, 90, 200):
            slide(page, degrees)
            seen = viewed(photo(120, 80, seed=1), degrees, False, True).resize(
                (120, 120), Image.Resampling.BICUBIC
            )
            away = np.abs(drawn(page).astype(float) - np.array(seen)).mean()
            assert away < 14, degrees  # noise of the picture; turned the wrong way it is above 60


def test_a_picture_is_chosen_dropped_or_pasted(browser, address, tmp_path):
    (tmp_path / "turned.png").write_bytes(encoded(photo(96, 96).rotate(90)))
    (tmp_path / "large.jpg").write_bytes(encoded(photo(3000, 2000).rotate(180), "JPEG"))
    (tmp_path / "text.png").write_text("no picture")
    with Watched(browser, address) as page:
        page.set_input_files("#file", tmp_path / "turned.png")
        lies(page, "90°")
        assert page.locator("#examples [aria-pressed=true]").count() == 0
        with page.expect_request("**/api/predict*") as sent:
            page.set_input_files("#file", tmp_path / "large.jpg")
        lies(page, "180°")
        assert sent.value.sizes()["requestBodySize"] < 1_000_000  # a smaller copy is sent
        page.set_input_files("#file", tmp_path / "text.png")
        expect(page.get_by_role("alert")).to_have_text("This is no picture that the browser can read.")
        for event, degrees in (("drop", 270), ("paste", 90)):
            data = list(encoded(photo(96, 96).rotate(degrees)))
            page.evaluate_handle(
                """([event, bytes]) => {
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
                    const options = {bubbles: true, cancelable: true};
                    dispatchEvent(event === "drop"
                        ? new DragEvent("drop", {...options, dataTransfer: data})
                        : new ClipboardEvent("paste", {...options, clipboardData: data}));
                }""",
                [event, data],
            )
            lies(page, f"{degrees}°")
            expect(page.get_by_role("alert")).to_be_hidden()


def test_keys_and_buttons(browser, address):
    with Watched(browser, address) as page:
        page.locator("#degrees").focus()
        for degrees in (1, 2, 3):
            page.keyboard.press("ArrowRight")
            expect(page.locator("#angle")).to_have_text(f"{degrees}°")
        page.keyboard.press("Home")
        expect(page.locator("#angle")).to_have_text("0°")
        page.locator("#left").focus()
        page.keyboard.press("Enter")
        lies(page, "90°")
        page.locator("#right").click(click_count=2)
        lies(page, "270°")
        expect(page.locator("#flip")).to_be_hidden()  # C4 knows no flips
        page.locator("#poses button").nth(2).click()
        lies(page, "180°")
        track = page.locator("#degrees").bounding_box()  # poses attract the pointer
        page.mouse.move(track["x"] + track["width"] / 2, track["y"] + track["height"] / 2)
        page.mouse.down()
        place = track["x"] + 12 + (track["width"] - 24) * 91 / 360  # the thumb is 24 pixels wide
        page.mouse.move(place, track["y"] + track["height"] / 2)
        expect(page.locator("#angle")).to_have_text("90°")
        page.mouse.up()
        reached = set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.title"))
        assert {"degrees", "left", "right", "round", "file", "Red below"} <= reached


def test_round_and_round(browser, address):
    with Watched(browser, address) as page:
        page.locator("#round").click()
        expect(page.locator("#round")).to_have_text("Stop")
        expect(page.locator("#round")).to_have_text("Turn it round", timeout=30_000)
        label = page.locator("#cells-adapted").get_attribute("aria-label")
        assert label == "adapted: the same answer as at 0° at 24 of 24 angles"
        bare = page.locator("#cells-bare").get_attribute("aria-label")
        assert int(bare.split(" of ")[0].split()[-1]) < 18
        expect(page.locator("#angle")).to_have_text("0°")


def test_stale_answers_are_dropped(browser, address):
    with Watched(browser, address) as page:
        held = []
        page.route("**/api/predict?degrees=0*", lambda route: held.append(route))
        page.get_by_role("button", name="Red below").click()
        page.wait_for_timeout(300)
        page.unroute("**/api/predict?degrees=0*")
        assert held  # the answer to the first choice has not come
        page.get_by_role("button", name="Red above, wide").click()
        lies(page, "0°")
        with pytest.raises(Error, match="already handled"):  # the page itself has given it up
            held[0].abort()
        says(page, "bare", "sky")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_a_busy_server_is_asked_again(browser, address):
    watched = Watched(browser, address)
    with watched as page:
        asked = []

        def busy(route):
            asked.append(route)
            if len(asked) > 1:
                route.continue_()
                return
            body = '{"error": {"code": "busy", "message": "all workers are busy"}}'
            route.fulfill(status=503, headers={"Retry-After": "1"}, body=body)

        page.route("**/api/predict?degrees=180*", busy)
        slide(page, 180)
        lies(page, "180°")
        assert len(asked) == 2
        expect(page.get_by_role("alert")).to_be_hidden()
        watched.complaints.remove(next(c for c in watched.complaints if "503" in c))  # the browser's own line


CONTRAST = """() => {
    const parse = (c) => c.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (e) => {
        for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0.99) return c;
        }
        return [255, 255, 255];
    };
    const low = [];
    for (const e of document.querySelectorAll("body *")) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        const shown = e.checkVisibility() && e.offsetWidth > 1 && !e.closest(".drop, canvas, svg, noscript");
        if (!own || !shown) continue;
        const style = getComputedStyle(e);
        const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.6 && style.fontWeight >= 700);
        if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) low.push(e.outerHTML.slice(0, 80));
    }
    return low;
}"""


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_fits_and_can_be_read(browser, address, width, scheme):
    viewport = {"width": width, "height": 844}
    with Watched(browser, address, viewport=viewport, color_scheme=scheme) as page:
        expect(page.locator("#poses li").nth(3).locator(".said.adapted")).to_have_text("sky")
        slide(page, 180)
        lies(page, "180°")
        page.wait_for_timeout(500)
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        assert page.evaluate(CONTRAST) == []
        for button in page.locator("button:visible, .button:visible, input[type=range]").all():
            box = button.bounding_box()
            assert min(box["width"], box["height"]) >= 24, button.inner_text()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, a, img, [role=img]")]
                .filter((e) => e.checkVisibility() && !e.textContent.trim() && !e.title && !e.ariaLabel)
                .filter((e) => !e.labels?.length && e.alt === undefined)
                .map((e) => e.outerHTML)"""
        )
        assert nameless == []


def test_flips_and_mirrored_poses(browser):
    torch.manual_seed(0)
    robust = upright.adapt(Corners(), "D4", canonicalizer=upright.canonicalizer("D4", size=32)).eval()
    made = Service(robust, LoadedModel(Corners(), preprocess(), NAMES, reference="toy"), pictures=PICTURES)
    with running(made) as (address, _), Watched(browser, address) as page:
        before = drawn(page)
        page.locator("#flip").click()
        expect(page.locator("#flip")).to_have_attribute("aria-pressed", "true")
        assert np.abs(drawn(page).astype(float) - before[:, ::-1]).mean() < 3
        expect(page.locator("#mirror-figure")).to_be_visible()
        expect(page.locator("#poses li")).to_have_count(8)
        assert page.locator("#polar-mirror .wedge").count() == 4


def test_boxes_and_masks_are_drawn(browser):
    made = service(Finder(), outputs=FOUND, task="instances", names=("", "sky"), pictures=PICTURES)
    with running(made) as (address, _), Watched(browser, address) as page:
        slide(page, 180)
        lies(page, "180°")
        says(page, "bare", "Nothing found")
        says(page, "adapted", "1 thing")
        page.wait_for_timeout(300)
        plain, found = drawn(page, "#bare-drawn").astype(float), drawn(page, "#adapted-drawn").astype(float)
        changed = np.abs(plain - found).max(-1) > 20
        assert changed[70:110].mean() > 0.9
        assert changed[10:40].mean() < 0.1
        expect(page.locator("#every")).to_be_hidden()


def test_the_page_about_the_endpoint(browser, address):
    watched = Watched(browser, address)
    with watched as page:
        page.goto(f"{address}/docs")
        expect(page.locator("#operations section")).to_have_count(4)
        expect(page.locator("#shell")).to_contain_text(f"{address}/api/predict")
        expect(page.locator("#limits")).to_contain_text("10 MiB and 25 megapixels")
        assert page.evaluate(CONTRAST) == []
