"""The page at `/` in a real Chromium: what people see of an answer, of a degraded one, and of an error."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import tiny_release
from page_under_test import OpenPage, classify, rows, url_of, winner
from playwright.sync_api import Browser, Route, expect
from tiny_task import Service, TinyTask, answers, build_task, free_port, student, until

from services.platform.errors import Overloaded
from services.platform.http import error_response

LONG = "printer " * 60
READ_KEY, TEXT_KEY = "read-key-0123456789", "text-key-0123456789"


@pytest.fixture(scope="module")
def service(built_task: TinyTask) -> Iterator[Service]:
    with student(built_task) as service:
        yield service


def test_an_answer_shows_what_the_service_says_and_what_it_was_made_of(
    service: Service, built_task: TinyTask, open_page: OpenPage
) -> None:
    page = open_page(url_of(service))
    classify(page, "wifi slow")
    expect(winner(page)).to_contain_text("about the network")
    explained = service.predict("wifi slow", explain=True).json()["predictions"][0]

    scores = {entry["label"]: entry["score"] for entry in explained["scores"]}
    expected = [
        [f"about the {label} {label}"]
        + [shown(part[label]) for part in (scores, explained["student"], explained["store"])]
        for label in scores
    ]
    assert rows(page, "Labels") == expected

    looked_up = rows(page, "What it looked up")
    assert len(looked_up) == len(explained["neighbours"]) == 4
    for row, neighbour in zip(looked_up, explained["neighbours"], strict=True):
        assert row[0] == f"{neighbour['text']} written by the generator"
        assert row[1] == "about the network 90.0%"
        assert row[2] == f"{neighbour['similarity']:.2f}"
        assert row[3] == shown(neighbour["weight"])

    words = page.get_by_role("list", name="What its words say").get_by_role("listitem")
    for item, said in zip(words.all(), explained["words"], strict=True):
        sign = "+" if said["weight"] >= 0 else "−"
        expect(item).to_have_text(f"{said['word']}{sign}{abs(said['weight']):.2f}")

    expect(page.locator("#made-of")).to_contain_text("The student alone says the same")
    share = f"{explained['weight']:.0%}"
    expect(page.locator("#made-of")).to_contain_text(f"Store {share}")
    timing = page.locator("#timing")
    for stage in ("Tokenizer", "Student", "Store search", "Mixing"):
        expect(timing.get_by_role("listitem").filter(has_text=stage)).to_have_text(
            re.compile(r"\d+(\.\d+)? ms$")
        )
    facts = page.get_by_role("complementary", name="Release")
    for fact in (built_task.one, "60 items", "tiny"):
        expect(facts).to_contain_text(fact)
    expect(page.locator("#health")).to_have_text("Ready")


def shown(value: float) -> str:
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}"


def test_a_text_unlike_the_tasks_is_told_to_be_so(tmp_path: Path, open_page: OpenPage) -> None:
    with student(build_task(tmp_path / "tiny", distance_threshold=0.2)) as service:
        explained = [
            service.predict(text, explain=True).json()["predictions"][0]
            for text in ("printer paper toner jam", "zebra quantum")
        ]
        assert [part["out_of_distribution"] for part in explained] == [False, True]
        page = open_page(url_of(service))
        classify(page, "printer paper toner jam")
        expect(winner(page)).to_contain_text("about the printer")
        expect(page.locator("#answer")).not_to_contain_text("Unlike this task’s texts")
        classify(page, "zebra quantum")
        expect(page.locator("#answer")).to_contain_text("Unlike this task’s texts")


def test_an_example_is_one_click_away(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service))
    page.get_by_role("group", name="Or pick an example").get_by_text("my printer jam").click()
    expect(winner(page)).to_contain_text("about the printer")
    expect(page.get_by_label("Text", exact=True)).to_have_value("my printer jam")


def test_a_text_with_markup_stays_a_text(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service))
    markup = "wifi <img src=nothing onerror=alert(1)><script>alert(2)</script>"
    classify(page, markup)
    expect(page.locator("#asked")).to_have_text(f"“{markup}”")
    assert page.locator("main img, main script").count() == 0


def test_a_pair_has_two_fields_and_examples_of_pairs(
    tmp_path_factory: pytest.TempPathFactory, open_page: OpenPage
) -> None:
    task = build_task(tmp_path_factory.mktemp("pairs") / "tiny", pair=True)
    examples = ["not a pair", ["my printer jam", "please help"]]
    (task.directory / "examples.json").write_text(json.dumps(examples))
    with student(task) as service:
        page = open_page(url_of(service))
        group = page.get_by_role("group", name="Or pick an example")
        assert group.get_by_role("button").all_inner_texts() == ["my printer jam / please help"]
        page.get_by_label("First text").fill("wifi slow")
        page.get_by_role("button", name="Classify", exact=True).click()
        expect(page.get_by_role("alert")).to_have_text("Enter the second text to classify.")
        expect(page.get_by_label("Second text")).to_be_focused()
        page.keyboard.type("wifi slow please")
        page.keyboard.press("Enter")
        expect(winner(page)).to_contain_text("about the network")
        assert rows(page, "What it looked up")[0][0].endswith("please written by the generator")
        page.get_by_role("button", name="Copy link").click()
        expect(page.locator("#link-told")).not_to_be_empty()
        other = open_page(url_of(service), path=page.evaluate("'/' + location.hash"))
        expect(winner(other)).to_contain_text("about the network")
        expect(other.get_by_label("Second text")).to_have_value("wifi slow please")


def test_a_link_holds_the_text_only_when_somebody_asks_for_one(
    service: Service, open_page: OpenPage
) -> None:
    text = "wifi slow & 100% offline #1 + ü"
    page = open_page(url_of(service), permissions=["clipboard-read", "clipboard-write"])
    classify(page, text)
    expect(winner(page)).to_contain_text("about the network")
    assert page.evaluate("location.hash") == ""
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#link-told")).to_have_text("Copied. The link holds the text.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    assert unquote(link.partition("#text=")[2]) == text

    asked: list[str] = []
    other = open_page(url_of(service))
    other.on("request", lambda request: asked.append(request.url))
    other.goto(link)
    expect(winner(other)).to_contain_text("about the network")
    expect(other.get_by_label("Text", exact=True)).to_have_value(text)
    assert not any("wifi" in url.partition("#")[0] for url in asked)
    other.get_by_label("Text", exact=True).press("End")
    other.keyboard.type("!")
    assert other.evaluate("location.hash") == ""


def test_without_the_store_the_answer_says_so(built_task: TinyTask, open_page: OpenPage) -> None:
    with student(built_task, store_url=f"http://127.0.0.1:{free_port()}") as service:
        page = open_page(url_of(service))
        expect(page.locator("#health")).to_have_text("Answers without the store")
        classify(page, "wifi slow")
        expect(winner(page)).to_contain_text("about the network")
        notice = page.locator("#degraded")
        expect(notice).to_contain_text("Answered without the store")
        expect(notice).to_contain_text("The store cannot be reached.")
        expect(notice).to_contain_text("store_unavailable")
        expect(page.locator("#neighbours")).to_contain_text("Nothing")
        assert [len(row) for row in rows(page, "Labels")] == [2, 2, 2]
        expect(page.locator("#announcement")).to_contain_text("Without the store")


def test_where_keys_are_on_the_page_asks_for_one_and_forgets_it(
    built_task: TinyTask, open_page: OpenPage
) -> None:
    with student(built_task, read_keys=READ_KEY, text_keys=TEXT_KEY) as service:
        page = open_page(url_of(service))
        field = page.get_by_label("Key")
        expect(field).to_be_visible()
        classify(page, "wifi slow")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("This service asks for a key")
        expect(field).to_be_focused()
        page.keyboard.type("a-key-that-nobody-has")
        page.keyboard.press("Enter")
        expect(alert).to_contain_text("This key is not known here")

        field.fill(READ_KEY)
        page.keyboard.press("Enter")
        expect(winner(page)).to_contain_text("about the network")
        expect(alert).to_be_empty()
        neighbours = page.locator("#neighbours")
        expect(neighbours).to_contain_text("Their texts take a key")
        assert all(row[0].startswith("Item ") for row in rows(page, "What it looked up"))

        neighbours.get_by_role("button", name="Enter a key").click()
        expect(field).to_be_focused()
        page.keyboard.type(TEXT_KEY)
        page.keyboard.press("Enter")
        expect(neighbours).not_to_contain_text("Their texts take a key")
        assert "written by the generator" in rows(page, "What it looked up")[0][0]

        page.get_by_role("button", name="Copy link").click()
        expect(page.locator("#link-told")).not_to_be_empty()
        kept = page.evaluate(
            "[location.href, document.cookie, ...Object.entries({...localStorage}),"
            " ...Object.entries({...sessionStorage})].join()"
        )
        assert TEXT_KEY not in kept
        page.reload()
        expect(field).to_have_value("")
        expect(page.get_by_role("alert")).to_contain_text("This service asks for a key")


def test_a_text_that_is_too_long_can_be_cut(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service))
    classify(page, "wifi slow")
    expect(winner(page)).to_be_visible()
    classify(page, LONG)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The text is too long")
    expect(alert).to_contain_text(f"more than {tiny_release.MAX_TOKENS} tokens")
    expect(alert).to_contain_text("text_too_long")
    expect(page.locator("#answer")).to_be_hidden()
    alert.get_by_role("button", name="Cut it").click()
    expect(winner(page)).to_contain_text("about the printer")
    expect(alert).to_be_empty()


def test_more_than_the_service_reads_is_refused_and_not_taken_for_an_absence(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(url_of(service))
    page.evaluate("document.getElementById('text').value = 'printer '.repeat(400_000)")
    page.get_by_role("button", name="Classify", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Too much at once")
    expect(alert).to_contain_text("body_too_large")


def test_nothing_to_classify_is_said_before_anything_is_sent(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(url_of(service))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    classify(page, "   ")
    expect(page.get_by_role("alert")).to_have_text("Enter a text to classify.")
    field = page.get_by_label("Text", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    page.keyboard.type("wifi")
    assert field.get_attribute("aria-invalid") is None
    assert asked == []


def test_a_busy_service_says_when_to_come_back(service: Service, open_page: OpenPage) -> None:
    page = open_page(url_of(service))
    refusal = error_response(Overloaded("1024 texts wait for an answer already."))

    def refuse(route: Route) -> None:
        route.fulfill(status=429, headers=dict(refusal.headers), body=bytes(refusal.body))

    page.route("**/predict", refuse, times=1)
    classify(page, "wifi slow")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The service is busy")
    expect(alert).to_contain_text("Try again in a second.")
    alert.get_by_role("button", name="Try again").click()
    expect(winner(page)).to_contain_text("about the network")
    expect(alert).to_be_empty()


def test_an_answer_of_somebody_else_is_not_taken_for_the_services(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(url_of(service))
    page.route(
        "**/predict", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"), times=1
    )
    classify(page, "wifi slow")
    expect(page.get_by_role("alert")).to_contain_text("HTTP 502")
    assert page.get_by_role("heading", name="Bad gateway").count() == 0


def test_a_service_that_dies_is_seen_and_used_again_when_it_is_back(
    built_task: TinyTask, open_page: OpenPage
) -> None:
    port = free_port()
    with student(built_task, port=port) as service:
        page = open_page(url_of(service))
        classify(page, "wifi slow")
        expect(winner(page)).to_be_visible()
        service.process.kill()
        service.process.wait()
        classify(page, "my printer jam")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The service cannot be reached")
        expect(page.locator("#health")).to_have_text("Not reachable")
        expect(page.locator("#answer")).to_be_hidden()
    with student(built_task, port=port):
        alert.get_by_role("button", name="Try again").click()
        expect(winner(page)).to_contain_text("about the printer")
        expect(alert).to_be_empty()


def test_a_service_without_a_release_says_so(task: TinyTask, open_page: OpenPage) -> None:
    (task.releases.root / "live.json").unlink()
    with student(task, ready=False) as service:
        page = open_page(url_of(service))
        expect(page.locator("#health")).to_have_text("Not ready")
        classify(page, "wifi slow")
        expect(page.get_by_role("alert")).to_contain_text("No release serves yet.")
        task.releases.activate(task.two)
        alert = page.get_by_role("alert")
        until(lambda: answers(service, "/readyz"))
        alert.get_by_role("button", name="Try again").click()
        expect(winner(page)).to_contain_text("about the network")


def test_a_release_that_is_refused_is_told_while_the_one_before_serves(
    task: TinyTask, open_page: OpenPage
) -> None:
    with student(task) as service:
        task.point_at("r-000000000000")
        until(lambda: service.http.get("/readyz").json()["refused"])
        page = open_page(url_of(service))
        facts = page.get_by_role("complementary", name="Release")
        expect(facts).to_contain_text("A newer release is not served")
        expect(facts).to_contain_text("r-000000000000")
        expect(facts).to_contain_text(task.one)
        classify(page, "wifi slow")
        expect(winner(page)).to_contain_text("about the network")


def test_without_javascript_the_page_names_the_api(service: Service, browser: Browser) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(url_of(service))
        told = page.get_by_text("This page needs JavaScript")
        expect(told).to_be_visible()
        page.get_by_role("link", name="its description").click()
        expect(page.locator("body")).to_contain_text("openapi")


def test_another_release_is_named_from_its_first_answer_on(
    task: TinyTask, open_page: OpenPage
) -> None:
    with student(task) as service:
        page = open_page(url_of(service))
        example = page.get_by_role("button", name="wifi slow again")
        facts = page.get_by_role("complementary", name="Release")
        expect(facts).to_contain_text(task.one)
        task.releases.activate(task.two)
        until(lambda: service.release() == task.two)
        example.click()
        expect(facts).to_contain_text(task.two)
        expect(winner(page)).to_contain_text("about the network")
        expect(example).to_be_focused()


def test_an_answer_that_comes_late_does_not_replace_a_newer_one(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(url_of(service))
    held: list[Route] = []
    page.route("**/predict", lambda route: held.append(route), times=1)
    classify(page, "wifi slow")
    classify(page, "my printer jam")
    expect(winner(page)).to_contain_text("about the printer")
    assert len(held) == 1
    held[0].continue_()
    page.wait_for_timeout(300)
    expect(winner(page)).to_contain_text("about the printer")
    expect(page.get_by_role("alert")).to_be_empty()


def test_many_labels_are_shown_on_demand(service: Service, open_page: OpenPage) -> None:
    """The service's own answer, with labels added."""
    answer = service.predict("wifi slow", explain=True).json()
    explanation = answer["predictions"][0]
    for number in range(20):
        label = f"rare_{number}"
        explanation["scores"].append({"label": label, "score": 0.0001})
        explanation["student"][label] = explanation["store"][label] = 0.0
    page = open_page(url_of(service))
    page.route("**/predict", lambda route: route.fulfill(json=answer))
    classify(page, "wifi slow")
    visible = page.get_by_role("table", name="Labels").locator("tbody tr:visible")
    expect(visible).to_have_count(8)
    more = page.get_by_role("button", name="Show all 23 labels")
    more.click()
    expect(visible).to_have_count(23)
    fewer = page.get_by_role("button", name="Show fewer")
    expect(fewer).to_have_attribute("aria-expanded", "true")
    fewer.click()
    expect(visible).to_have_count(8)
