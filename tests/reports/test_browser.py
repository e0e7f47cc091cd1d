"""The page in headless Chromium (``apt-get install chromium chromium-driver``), by selenium."""

import json

import pytest

from st_l0.reports.page import write_page
from st_l0.reports.systems import read_systems


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_page(read_systems([runs]), folder / "report.html", title="Runs", queries=2)


def test_it_is_shown_whole_and_asks_for_nothing(browser, page, numbers):
    browser.get(page.as_uri())
    assert browser.title == "Runs"
    for figure in browser.find_elements("css selector", "figure svg"):
        assert figure.size["width"] > 200 and figure.size["height"] > 150
    shown = browser.find_element("css selector", '#averages tr[data-system="a-2"] td[data-key="ndcg@10"]')
    assert shown.text == f"{numbers['a-2']['average']['model']['ndcg@10']:.3f}"
    labels = [text.text for text in browser.find_elements("css selector", "#ndcg_lambda svg text")]
    assert {"BM25", "λ, weight of the document penalty"} <= set(labels)
    assert browser.get_log("browser") == []
    # The browser's own first page asks for things, too.
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    asked = [one["request"]["url"] for one in sent if one["documentURL"] == page.as_uri()]
    assert asked == [page.as_uri()]


def test_a_query_opens(browser, page):
    browser.get(page.as_uri())
    query = browser.find_element("css selector", 'details[data-kind="lost"]')
    inside = query.find_element("css selector", "div")
    assert not inside.is_displayed()
    query.find_element("css selector", "summary").click()
    assert inside.is_displayed() and "the best relevant one: rank" in inside.text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_every_width_and_scheme_can_be_read(browser, page, scheme, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    browser.get(page.as_uri())
    script = "return [document.documentElement.scrollWidth, innerWidth]"
    needed, there = browser.execute_script(script)
    assert needed <= there == width  # wide tables scroll by themselves
    colours = browser.execute_script(
        "const of = (what, name) => getComputedStyle(document.querySelector(what))[name];"
        "return [of('body', 'backgroundColor'), of('td', 'color'), of('p', 'color'), of('svg text', 'fill')]"
    )
    paper, *inks = ([int(part) for part in colour[4:-1].split(",")] for colour in colours)
    assert (sum(paper) > 382) == (scheme == "light")
    for ink in inks:
        assert contrast(paper, ink) > 4.5  # what WCAG wants of text


def contrast(*colours):
    """The ratio of WCAG 2."""
    lights = []
    for colour in colours:
        shares = [part / 255 for part in colour]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        lights.append(sum(map(float.__mul__, (0.2126, 0.7152, 0.0722), linear)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)
