"""The page at `/` without a mouse, without sight, in the dark, and on a phone, in a real Chromium."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import pytest
from accessibility import accessible_nodes, faint, wider_than_the_screen
from page_under_test import OpenPage, url_of
from page_under_test import classify as begin_to_classify
from playwright.sync_api import Page, expect
from tiny_task import Service, TinyTask, free_port, student

LEAST_TOUCH = 44
ANSWER, ERROR = "#answer", "#error > *"
PHONE: dict[str, Any] = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@pytest.fixture(scope="module")
def service(built_task: TinyTask) -> Iterator[Service]:
    with student(built_task) as service:
        yield service


@pytest.fixture(scope="module")
def alone(built_task: TinyTask) -> Iterator[Service]:
    """A service whose store is away."""
    with student(built_task, store_url=f"http://127.0.0.1:{free_port()}") as service:
        yield service


def classify(page: Page, text: str, until: str = ANSWER) -> None:
    begin_to_classify(page, text)
    expect(page.locator(until)).to_be_visible()


def focused(page: Page) -> str:
    """Name of what has the focus, and that it can be seen to have it."""
    outline = page.evaluate(
        "() => { const style = getComputedStyle(document.activeElement);"
        " return [style.outlineStyle, parseFloat(style.outlineWidth)]; }"
    )
    assert outline[0] == "solid"
    assert outline[1] >= 2
    name: str = page.evaluate(
        "document.activeElement.labels?.[0]?.innerText || document.activeElement.innerText"
    )
    return name


def test_the_keyboard_alone_is_enough(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service))
    press = page.keyboard.press
    press("Tab")
    assert focused(page) == "Text"
    page.keyboard.type("wifi")
    press("Shift+Enter")
    page.keyboard.type("slow")
    assert page.locator("#text").input_value() == "wifi\nslow"
    press("Enter")
    answer = page.locator("#answer-title")
    expect(answer).to_contain_text("about the network")
    assert focused(page) == "Text", "an answer must not take the focus away"
    press("ControlOrMeta+a")
    page.keyboard.type("my printer jam")
    press("Tab")
    assert focused(page) == "Classify"
    press("Space")
    expect(answer).to_contain_text("about the printer")
    press("Tab")
    assert focused(page) == "Copy link with this text"
    press("Tab")
    assert focused(page) == "wifi slow again"
    press("Enter")
    expect(answer).to_contain_text("about the network")
    press("Shift+Tab")
    press("Shift+Tab")
    assert focused(page) == "Classify"


def test_a_screen_reader_is_told_of_every_answer_and_every_error(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(url_of(service))
    told = page.locator("#announcement")
    expect(told).to_have_attribute("role", "status")
    classify(page, "wifi slow")
    expect(told).to_have_text(
        re.compile(r"about the network, \d+\.\d%\. The student alone: .* 4 knowledge items")
    )
    classify(page, "printer " * 60, ERROR)
    expect(page.get_by_role("alert")).to_contain_text("The text is too long")
    expect(told).to_be_empty()


def test_every_control_table_and_region_has_a_name(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service))
    classify(page, "wifi slow")
    page.evaluate("document.getElementById('key-field').hidden = false")
    nodes = accessible_nodes(page)
    nameless = [
        node
        for node in nodes
        if (node["focusable"] or node["role"] in ("region", "table", "group", "complementary"))
        and not node["name"]
    ]
    assert nameless == []
    names = {(node["role"], node["name"]) for node in nodes}
    for expected in (
        ("textbox", "Text"),
        ("textbox", "Key"),
        ("table", "Labels"),
        ("table", "What it looked up"),
        ("columnheader", "Similarity"),
        ("columnheader", "Student alone"),
        ("rowheader", "about the network network"),
    ):
        assert expected in names
    field = next(node for node in nodes if node["name"] == "Text" and node["role"] == "textbox")
    assert "Enter classifies" in field["description"]
    for landmark in ("banner", "main", "complementary"):
        assert [node["role"] for node in nodes].count(landmark) == 1


def test_headings_form_an_outline_and_ids_are_unique(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service))
    classify(page, "wifi slow")
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter((h) => h.checkVisibility())"
        ".map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    dangling = page.evaluate(
        """[...document.querySelectorAll('*')].flatMap((element) =>
          ['for', 'aria-labelledby', 'aria-describedby', 'aria-controls']
            .flatMap((name) => element.getAttribute(name)?.split(' ') ?? [])
            .filter((id) => document.getElementById(id) === null))"""
    )
    assert dangling == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title() == "tiny · RetriKT"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_in_both_schemes(
    service: Service,
    alone: Service,
    open_page: OpenPage,
    scheme: Literal["light", "dark"],
) -> None:
    page = open_page(url_of(service), color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 382) == (scheme == "light")
    page.evaluate("document.getElementById('key-field').hidden = false")
    assert faint(page) == []
    classify(page, "wifi slow")
    assert faint(page) == []
    classify(page, "printer " * 60, ERROR)
    assert faint(page) == []
    page = open_page(url_of(alone), color_scheme=scheme)
    classify(page, "wifi slow")
    expect(page.locator("#degraded")).to_contain_text("Answered without the store")
    assert faint(page) == []


@pytest.mark.parametrize("width", [320, 390, 700])
def test_nothing_has_to_be_scrolled_sideways(
    service: Service, open_page: OpenPage, width: int
) -> None:
    page = open_page(url_of(service), viewport={"width": width, "height": 740}, **PHONE)
    assert wider_than_the_screen(page) == []
    classify(page, "wifi " + "slow" * 100)
    expect(page.locator("#answer-title")).to_be_in_viewport()
    assert wider_than_the_screen(page) == []
    classify(page, "printer " * 60, ERROR)
    assert wider_than_the_screen(page) == []
    expect(page.get_by_role("alert")).to_be_in_viewport()


def test_a_finger_finds_every_control_on_a_phone(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service), viewport={"width": 360, "height": 740}, **PHONE)
    page.get_by_role("button", name="my printer jam").tap()
    expect(page.locator("#answer-title")).to_contain_text("about the printer")
    controls = page.locator("button:visible, textarea:visible, input:visible")
    assert controls.count() >= 5
    for control in controls.all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= LEAST_TOUCH
    # Below 16 pixels a phone's browser zooms in when a field is touched, and stays there.
    size = page.evaluate("parseFloat(getComputedStyle(document.getElementById('text')).fontSize)")
    assert size >= 16
    looked_up = page.get_by_role("table", name="What it looked up")
    expect(looked_up.get_by_role("row")).to_have_count(5)
    expect(looked_up.get_by_role("columnheader", name="Similarity")).to_have_count(1)


def test_text_enlarged_to_twice_its_size_still_fits(service: Service, open_page: OpenPage) -> None:
    """As browsers' zoom does: 200 % on a screen of 1280 leaves 640 pixels (WCAG 1.4.4)."""
    page = open_page(url_of(service), viewport={"width": 640, "height": 450})
    page.evaluate("document.documentElement.style.fontSize = '150%'")
    classify(page, "wifi slow")
    assert wider_than_the_screen(page) == []
