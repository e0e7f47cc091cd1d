"""The page in headless Chromium (``apt-get install chromium chromium-driver``), by selenium.

``--screenshots docs/images`` keeps the pictures that the documentation shows.
"""

import json
from pathlib import Path

import pytest
from demo_data import DOCUMENTS, INJECTION

pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the extra dev)")
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait


@pytest.fixture
def screenshot(browser, request, tmp_path):
    """Function: keep what the browser shows under a name."""
    folder = Path(request.config.getoption("--screenshots") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name):
        path = folder / f"{name}.png"
        assert browser.save_screenshot(str(path)) and path.stat().st_size > 5000

    return keep


@pytest.fixture
def page(browser, served):
    """The page of the index, ready; as wide as a screen and light."""
    resize(browser, 1280, 1000)
    scheme(browser, "light")
    browser.get_log("browser")
    browser.get_log("performance")
    show(browser, served)
    return browser


def show(browser, address):
    browser.get(address)
    until(browser, lambda: browser.execute_script("return document.body.dataset.ready") == "true")


def until(browser, is_so):
    # The page may draw its hits anew between finding one and reading it.
    again = (StaleElementReferenceException,)
    wait = WebDriverWait(browser, 30, poll_frequency=0.02, ignored_exceptions=again)
    return wait.until(lambda _: is_so())


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def texts(browser, selector):
    return [one.text for one in find(browser, selector)]


def resize(browser, width, height):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def scheme(browser, name):
    feature = {"features": [{"name": "prefers-color-scheme", "value": name}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)


def type_query(browser, text):
    field = find(browser, "#q")[0]
    field.clear()
    field.send_keys(text)
    tokens = "return document.getElementById('status').textContent"
    until(browser, lambda: " in " in browser.execute_script(tokens))


def set_slider(browser, id, value):
    browser.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('input', {bubbles: true}));",
        id,
        str(value),
    )


def test_hits_come_while_typing_and_say_why(page, served, ask, screenshot):
    type_query(page, "read a file")
    expected = ask(f"{served}/search?q=read+a+file").content
    until(page, lambda: len(find(page, "#hits > li")) == len(expected["hits"]))
    assert texts(page, "#hits h3")[0] == "1. files"
    shown = texts(page, "#hits > li:first-child > .bars li")
    parts = expected["hits"][0]["parts"]
    assert shown == [f"{part['name']}\n{part['score']:.3f}" for part in parts]
    widths = [one.size["width"] for one in find(page, "#hits > li > .bars .bar > span")]
    whole = find(page, "#hits .bar")[0].size["width"]
    scores = [part["score"] for hit in expected["hits"] for part in hit["parts"]]
    for width, score in zip(widths, scores, strict=True):
        assert abs(width - whole * score / max(scores)) < 2
    assert f"FLOPS {expected['flops']:.2f}" in find(page, "#query-facts")[0].text
    assert page.get_log("browser") == []
    screenshot("demo-search")


def test_expansions_in_the_text(page, screenshot):
    type_query(page, "read a file")
    until(page, lambda: find(page, "#hits > li"))
    find(page, "#hits > li:first-child summary")[0].send_keys(Keys.ENTER)
    until(page, lambda: find(page, "#hits .pieces"))
    assert find(page, "#hits .pieces")[0].text == DOCUMENTS["files"]
    assert "file" in texts(page, "#hits .pieces mark")
    title, _ = texts(page, "#hits h4")
    assert title.startswith("Expansions: tokens beyond the text (")
    screenshot("demo-document")


def test_a_document_that_injects_markup_is_shown_as_text(page):
    type_query(page, "bread")
    until(page, lambda: find(page, "#hits > li"))
    assert texts(page, "#hits h3") == [f"1. {INJECTION[:60]}"]
    assert find(page, "#hits .text")[0].text == INJECTION
    find(page, "#hits summary")[0].click()
    until(page, lambda: find(page, "#hits .pieces"))
    assert find(page, "#hits .pieces")[0].text == INJECTION
    assert not find(page, "main img, main script, #bold") and "injected" not in page.title
    assert page.get_log("browser") == []


def test_it_asks_this_server_only(page, served):
    type_query(page, "fish")
    messages = [json.loads(line["message"])["message"] for line in page.get_log("performance")]
    sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    asked = [one["request"]["url"] for one in sent if one["documentURL"].startswith(served)]
    assert len(asked) > 4 and all(url.startswith((served, "data:,")) for url in asked)


def test_pruning_k_and_filters(page):
    find(page, "summary")[0].click()
    type_query(page, "read the red fish")
    until(page, lambda: len(find(page, "#hits > li")) > 1)
    set_slider(page, "k", 1)
    until(page, lambda: len(find(page, "#hits > li")) == 1)
    assert find(page, "#k-value")[0].text == "1"
    set_slider(page, "k", 10)
    assert not find(page, "#query-tokens .left-out")
    set_slider(page, "prune", 1)
    until(page, lambda: find(page, "#query-tokens .left-out"))
    assert find(page, "#prune-value")[0].text == "100 %"
    assert find(page, "#query-facts")[0].text.startswith("1 token;")
    set_slider(page, "prune", 0)
    find(page, "#ids")[0].send_keys("long, none")
    until(page, lambda: texts(page, "#hits h3") == ["1. long"])
    assert not find(page, "#filter")[0].is_displayed()


def test_words_beside_and_alone(page, screenshot):
    find(page, "summary")[0].click()
    type_query(page, "fish bread")
    until(page, lambda: find(page, "#hits > li"))
    assert not find(page, "#hits .word") and not find(page, "#words-alone")[0].is_displayed()
    assert find(page, "#bm25-value")[0].text == "2.5"  # as the index has it
    find(page, "#words")[0].click()
    until(page, lambda: find(page, "#hits .word"))
    find(page, "#beside")[0].click()
    until(page, lambda: find(page, "#alone .word"))
    assert not find(page, "#alone .token")
    screenshot("demo-words")


def test_an_error_is_said_and_goes_away(page):
    type_query(page, "fish")
    page.execute_script("document.getElementById('q').removeAttribute('maxlength')")
    page.execute_script("document.getElementById('q').value = 'a'.repeat(2001)")
    find(page, "#q")[0].send_keys("b")
    until(page, lambda: "2,002 characters" in find(page, "#error")[0].text)
    find(page, "#q")[0].clear()
    find(page, "#q")[0].send_keys("fish")
    until(page, lambda: find(page, "#error")[0].text == "")


def test_by_keyboard_alone(page):
    order = []
    for _ in range(40):
        focused = page.switch_to.active_element
        order.append(focused.get_attribute("id") or focused.tag_name)
        focused.send_keys(Keys.ENTER if order[-1] == "summary" and len(order) == 2 else Keys.TAB)
        if order[-1] == "a":
            break
    assert order[0] == "q" and order[1] == "summary"  # which opens the settings
    seen = list(dict.fromkeys(order))
    assert seen == ["q", "summary", "prune", "k", "words", "bm25", "beside", "ids", "text", "button", "a"]


def test_every_control_has_a_name_for_a_screen_reader(page):
    find(page, "summary")[0].click()
    type_query(page, "read a file")
    until(page, lambda: find(page, "#hits > li"))
    controls = [one for one in find(page, "input, textarea, button, summary, a") if one.is_displayed()]
    assert len(controls) > 10 and all(one.accessible_name for one in controls)
    assert find(page, "#status")[0].aria_role == "status" and find(page, "#error")[0].aria_role == "alert"
    assert [one.aria_role for one in find(page, "main, form[role=search]")] == ["main", "search"]
    levels = [one.tag_name.lower() for one in find(page, "h1, h2, h3")]
    assert levels[0] == "h1" and levels.count("h1") == 1


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_every_width_and_scheme_can_be_read(page, colours, width, screenshot):
    resize(page, width, 1000)
    scheme(page, colours)
    find(page, "summary")[0].click()
    type_query(page, "read a file")
    until(page, lambda: find(page, "#hits > li"))
    find(page, "#hits summary")[0].click()
    until(page, lambda: find(page, "#hits .pieces"))
    needed, there = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert needed <= there == width
    found = page.execute_script(
        "const of = (what, name) => getComputedStyle(document.querySelector(what))[name];"
        "return [of('body', 'backgroundColor'), of('.text', 'color'), of('#query-facts', 'color'),"
        " of('.value', 'color'), of('footer a', 'color'), of('h4', 'color'), of('#status', 'color')]"
    )
    paper, *inks = map(as_rgb, found)
    assert (sum(paper) > 382) == (colours == "light")
    for ink in inks:
        assert contrast(paper, ink) > 4.5  # what WCAG wants of text
    mark = page.execute_script(
        "return getComputedStyle(document.documentElement).getPropertyValue('--mark')"
    ).strip()
    solid = [int(mark[place : place + 2], 16) for place in (1, 3, 5)]
    assert contrast(solid, inks[0]) > 4.5  # the heaviest token of a text
    if width == 1280 and colours == "dark":
        screenshot("demo-dark")


def test_a_model_alone(browser, served_model):
    resize(browser, 1280, 1000)
    show(browser, served_model)
    find(browser, "#q")[0].send_keys("red fish")
    until(browser, lambda: len(find(browser, "#query-tokens li")) == 2)
    assert not find(browser, "#results")[0].is_displayed()
    find(browser, "#text")[0].send_keys("<b>A red fish</b> swims.")
    find(browser, "#document-form button")[0].click()
    until(browser, lambda: find(browser, "#document .pieces"))
    assert find(browser, "#document .pieces")[0].text == "<b>A red fish</b> swims."
    assert "fish" in texts(browser, "#document mark")
    assert find(browser, "#document p")[0].text.startswith("Score for the query: ")


def as_rgb(colour):
    return [int(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]


def contrast(*colours):
    """The ratio of WCAG 2."""
    lights = []
    for colour in colours:
        shares = [part / 255 for part in colour]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        lights.append(sum(map(float.__mul__, (0.2126, 0.7152, 0.0722), linear)))
    return (max(lights) + 0.05) / (min(lights) + 0.05)
