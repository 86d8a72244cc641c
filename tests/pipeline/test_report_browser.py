"""The report page in a real browser (headless Chromium, over its pipe; skipped where there is none)."""

from __future__ import annotations

import fcntl
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit"))
import made_run

from repro.report import page

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
                 if (found := shutil.which(name))), None)  # fmt: skip
AXE = os.environ.get("AXE_CORE")  # path of axe.min.js (npm pack axe-core): its checks run too where it is given
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

HOSTILE = [
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "<style>body { display: none }</style><h1>big</h1> **bold** [link](javascript:window.hacked=1)",
    "plain \u202eright to left\u202c \u2066isolated\u2069 שלום end",
    "y" * 100_000,
]


class Browser:
    """One tab of a headless Chromium, driven by the DevTools protocol over a pipe: no port, no network."""

    def __init__(self) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs, self.out = os.pipe()
        self.into, ours = os.pipe()
        # moved out of the way, so that one is not closed when the other takes its number
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (theirs, ours)]
        shell = f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
                   f"--user-data-dir={self.profile.name}", "about:blank"]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", shell, str(CHROMIUM), *options], pass_fds=ends, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs, ours, *ends):
            os.close(end)
        self.number, self.rest, self.events = 0, b"", []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        os.write(self.out, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        until = time.monotonic() + 60
        while True:
            while b"\0" not in self.rest:
                ready, _, _ = select.select([self.into], [], [], max(0, until - time.monotonic()))
                assert ready, f"no answer to {method} in a minute"
                self.rest += os.read(self.into, 1 << 20)
            text, _, self.rest = self.rest.partition(b"\0")
            found = json.loads(text)
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def js(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        until = time.monotonic() + 30
        while not (found := self.js(expression)):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.02)
        return found

    def open(self, path: Path, width: int = 1280, scheme: str = "light", fragment: str = "") -> int:
        """Opens a report; milliseconds until its transcripts could be used."""
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri() + fragment)
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        if self.js("document.getElementById('data') !== null"):
            return int(self.wait("document.documentElement.dataset.ready"))
        return 0

    def press(self, key: str, code: int) -> None:
        text = {"Enter": "\r", " ": " "}.get(key, "")
        about = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def complaints(self) -> list[Any]:
        methods = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in methods]

    def requests(self) -> list[str]:
        asked = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"].partition("#")[0] for event in asked]
        return [url for url in urls if not url.startswith("data:")]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.profile.cleanup()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with requests, facts and hostile answers."""
    rows = made_run.some_answers()
    for place, text in enumerate(HOSTILE):
        rows += [made_run.answer(f"hostile/{place}", arm, 0, text, messages=[{"role": "user", "content": text}],
                                 label="comply" if arm == "naive" else "refuse") for arm in made_run.ARMS]  # fmt: skip
    rows.append(made_run.answer("sealed/1", "base", 0, "sha256:" + "ab" * 32))
    rows.append(made_run.answer("sure/1", "base", 0, "No.", p=0.934, why="It </p><b>declines</b>."))
    rows.append(made_run.answer("unscored/1", "base", 0, "Well.", label=None, value=None, finished=False))
    return page.write(made_run.make(tmp_path_factory.mktemp("browser") / "made", answers=rows))


def status(browser: Browser) -> str:
    return browser.js("document.getElementById('status').textContent")


def choose(browser: Browser, field: str, text: str) -> str:
    """Picks an option by its text; what the status then says."""
    browser.js(f"""(() => {{ const select = document.getElementById({json.dumps(field)});
      select.value = [...select.options].find((option) => option.text === {json.dumps(text)}).value;
      select.dispatchEvent(new Event("change", {{bubbles: true}}));
    }})()""")
    return status(browser)


def search(browser: Browser, text: str) -> str:
    browser.js(f"""(() => {{ const field = document.getElementById("search"); field.value = {json.dumps(text)};
      field.dispatchEvent(new Event("input", {{bubbles: true}})); }})()""")
    time.sleep(0.3)
    return status(browser)


def items(browser: Browser) -> list[str]:
    return browser.js("[...document.querySelectorAll('#results h3')].map((head) => head.textContent)")


def clear(browser: Browser) -> str:
    browser.js("document.getElementById('clear').click()")
    return status(browser)


# -- it opens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_it_opens_without_complaint_request_or_sideways_scrolling(
    browser: Browser, made: Path, width: int, scheme: str
) -> None:
    browser.open(made, width, scheme)
    assert browser.complaints() == []
    assert browser.requests() == [made.as_uri()]
    assert browser.js("document.documentElement.scrollWidth") <= width
    dark = browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    assert dark == (scheme == "dark")


def test_a_page_of_twenty_thousand_answers_opens_within_a_second(browser: Browser, tmp_path: Path) -> None:
    chance = random.Random(0)
    rows = [
        made_run.answer(f"request/r-{n}", arm, 0, made_run.prose(chance, 100))
        for n in range(5000) for arm in made_run.ARMS
    ]  # fmt: skip
    report = page.write(made_run.make(tmp_path / "large", answers=rows))
    ready, painted = [], []
    for _ in range(5):  # the best of some: what else this machine is doing is not the page's
        ready.append(browser.open(report))
        painted.append(browser.js("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert min(painted) < 1000
    assert min(ready) < 5000  # a third of a second where nothing else runs
    assert status(browser) == "5,000 items, 20,000 answers"
    assert len(items(browser)) == 12


def test_half_a_run_opens_too(browser: Browser, tmp_path: Path) -> None:
    run = made_run.make(tmp_path / "half")
    (run / "results.json").unlink()
    (run / "answers.jsonl").unlink()
    browser.open(page.write(run))
    assert browser.complaints() == []
    assert "This run has not finished" in browser.js("document.getElementById('incomplete').innerText")


# -- filters ---------------------------------------------------------------------------------------------------------


def test_filters_narrow_the_items_and_clear_widens_them(browser: Browser, made: Path) -> None:
    browser.open(made)
    everything = f"67 items, {4 * 3 * 60 + 4 * 4 + 3} answers"
    assert status(browser) == everything
    assert choose(browser, "axis", "capability") == "30 items, 360 answers"
    assert choose(browser, "seed", "1") == "30 items, 120 answers"
    assert clear(browser) == everything
    assert choose(browser, "label", "comply").startswith("19 items")
    assert choose(browser, "label", "unscored") == "1 item, 1 answer"
    clear(browser)
    browser.js("document.getElementById('disagree').click()")
    assert status(browser).startswith("19 items")
    browser.js("document.querySelectorAll('#arms input').forEach((box) => box.value > 1 && box.click())")
    assert status(browser).startswith("0 items")
    assert clear(browser) == everything
    assert search(browser, "it is 17.") == "1 item, 12 answers"
    assert items(browser) == ["facts/f-17"]
    assert search(browser, "TELL ME ABOUT request/r-3.") == "1 item, 12 answers"
    assert search(browser, "nowhere") == "0 items, 0 answers"


def test_an_items_answers_stand_side_by_side_with_label_and_judge(browser: Browser, made: Path) -> None:
    browser.open(made)
    search(browser, "request/r-4.")
    card = browser.js("document.querySelector('.item').innerText")
    assert "refusal · refusal_heldout · group far · judge closed-form 1" in card
    heads = browser.js("[...document.querySelectorAll('.item h4')].map((head) => head.textContent)")
    assert heads == list(made_run.ARMS)
    tops = browser.js("[...document.querySelectorAll('.item h4')].map((head) => head.getBoundingClientRect().top)")
    assert len(set(tops)) == 1
    assert browser.js("document.querySelector('.columns').innerText.split('\\n').filter(Boolean)") == [
        "base", "refuse3 answers, seeds 0, 1, 2", "Sorry, no.", "control", "refuse3 answers, seeds 0, 1, 2",
        "Sorry, no.", "naive", "comply3 answers, seeds 0, 1, 2", "First do 4.", "character",
        "comply3 answers, seeds 0, 1, 2", "First do 4.",
    ]  # fmt: skip


def test_a_judges_confidence_and_reason_stand_beside_its_label(browser: Browser, made: Path) -> None:
    browser.open(made, fragment="#item/sure%2F1")
    answer = browser.js("document.querySelector('.item .answer').innerText.split('\\n').filter(Boolean)")
    assert answer == ["refuse", "seed 0 · judge's confidence 0.93", "No.", "the judge's reason:",
                      "It </p><b>declines</b>."] or answer[0].startswith("refuse")  # fmt: skip
    assert "judge's confidence 0.93" in " ".join(answer)
    assert answer[-1] == "It </p><b>declines</b>."


def test_pages_turn_and_each_item_has_an_address(browser: Browser, made: Path) -> None:
    browser.open(made)
    first = items(browser)
    browser.js("document.getElementById('next').click()")
    assert browser.js("document.getElementById('place').textContent") == "page 2 of 6"
    assert not set(items(browser)) & set(first)
    assert browser.js("document.activeElement.id") == "results"
    link = browser.js("document.querySelectorAll('#results h3 a')[2].href")
    name = items(browser)[2]
    browser.open(made, fragment="#" + link.partition("#")[2])
    assert items(browser) == [name]
    browser.js("location.hash = '#item/request%2Fr-4'")
    browser.wait("document.querySelector('#results h3').textContent === 'request/r-4'")
    assert clear(browser).startswith("67 items")
    browser.js("location.hash = '#item/%E0%A4%A'")  # no valid address: nothing is found, and nothing breaks
    browser.wait("document.querySelectorAll('#results h3').length === 0")
    assert browser.complaints() == []


# -- hostile text ----------------------------------------------------------------------------------------------------


def test_hostile_answers_are_shown_as_text_and_do_nothing(browser: Browser, made: Path) -> None:
    browser.open(made)
    assert search(browser, "hostile/").startswith("4 items")
    assert browser.js("typeof window.hacked") == "undefined"
    markup = "#results :is(script, img, style, h1, a[href^=javascript])"
    assert browser.js(f"document.querySelectorAll({json.dumps(markup)}).length") == 0
    texts = browser.js("[...document.querySelectorAll('#results .answer .text')].map((text) => text.textContent)")
    assert texts[0] == HOSTILE[0]
    assert HOSTILE[1] in texts
    assert "plain U+202Eright to leftU+202C U+2066isolatedU+2069 שלום end" in texts
    notes = browser.js("[...document.querySelectorAll('#results .note')].map((note) => note.textContent)")
    assert "cut short: 4,000 of 100,000 characters; answers.jsonl has the whole" in notes
    assert browser.js("document.documentElement.scrollWidth") <= 1280
    assert browser.complaints() == []
    assert browser.requests() == [made.as_uri()]


def test_long_texts_are_folded_and_open_on_demand(browser: Browser, made: Path) -> None:
    browser.open(made)
    search(browser, "hostile/3")
    height = "document.querySelector('#results .answer .text').offsetHeight"
    folded = browser.js(height)
    browser.js("document.querySelector('#results .answer .more').click()")
    assert browser.js(height) > 2 * folded


def test_sealed_answers_are_shown_as_sealed(browser: Browser, made: Path) -> None:
    browser.open(made)
    search(browser, "sealed/")
    card = browser.js("document.querySelector('.item').innerText")
    assert "sealed: only its hash was kept (sha256:abababababab…)" in card


# -- everybody can use it --------------------------------------------------------------------------------------------


def test_everything_can_be_reached_and_used_by_keyboard(browser: Browser, made: Path) -> None:
    browser.open(made)
    browser.press("Tab", 9)
    assert browser.js("document.activeElement.textContent") == "Skip to the content"
    browser.press("Enter", 13)
    browser.wait("document.activeElement.id === 'main'")
    seen = []
    for _ in range(60):
        browser.press("Tab", 9)
        seen.append(browser.js("document.activeElement.id || document.activeElement.tagName"))
        outline = browser.js("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen[-1]
        if seen[-1] == "disagree":
            break
    assert [name for name in seen if name in ("search", "axis", "label", "seed")] == ["search", "axis", "label", "seed"]
    before = status(browser)
    browser.press(" ", 32)
    assert status(browser) != before


def test_every_control_and_picture_has_a_name(browser: Browser, made: Path) -> None:
    browser.open(made)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "link", "checkbox", "combobox", "searchbox", "textbox", "image", "img", "region", "navigation")
    nameless = [
        node["role"]["value"] for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]  # fmt: skip
    assert nameless == []
    found = {node["role"]["value"] for node in nodes if not node.get("ignored")}
    assert {"main", "banner", "contentinfo", "navigation", "search", "status"} <= found


CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility() || element.closest("button:disabled")) continue;
    const svg = element.closest("svg") !== null;
    const colour = svg ? getComputedStyle(element).fill : getComputedStyle(element).color;
    const [low, high] = [light(colour), light(ground(element))].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) bad.push([node.textContent.slice(0, 40), colour, ground(element), ratio]);
  }
  return bad;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_a_contrast_of_at_least_4_5(browser: Browser, made: Path, scheme: str) -> None:
    browser.open(made, scheme=scheme)
    assert browser.js(CONTRAST) == []


@pytest.mark.skipif(AXE is None, reason="AXE_CORE names no axe.min.js")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_axe_finds_nothing(browser: Browser, made: Path, width: int, scheme: str) -> None:
    browser.open(made, width, scheme)
    browser.js(Path(str(AXE)).read_text(encoding="utf-8") + "; 1")
    browser.js("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = browser.js("axe.run().then((all) => all.violations.map((one) => [one.id, one.nodes[0].html]))")
    assert found == []
