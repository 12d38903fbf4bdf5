"""The page at `/`: whole, from this server alone, under a strict policy; and what it asks of the API."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tiny_release
from tiny_task import Service, TinyTask, build_task, student

from services.platform.errors import InvalidData
from services.student.examples import EXAMPLES, MOST_BYTES, MOST_EXAMPLES, read_examples
from services.student.page_routes import page_files

CHOSEN = ["wifi slow again", "my printer jam"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    task = build_task(tmp_path_factory.mktemp("page") / "tiny")
    (task.directory / EXAMPLES).write_text(json.dumps(CHOSEN), encoding="utf-8")
    with student(task) as service:
        yield service


class Markup(HTMLParser):
    """Every element of a page with its attributes, and the text inside of scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._open = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style"):
            self.inline += data.strip()


def test_the_page_names_only_files_that_the_service_serves(service: Service) -> None:
    response = service.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    markup = Markup(response.text)
    named = [
        attributes[name]
        for tag, attributes in markup.elements
        for name in ("src", "href")
        if attributes.get(name) and tag != "a"
    ]
    assert {"page/style.css", "page/main.js"} <= set(named)
    modules = {"page/main.js"}
    for name in page_files():
        if name.endswith(".js"):
            source = service.http.get(f"/page/{name}").text
            modules |= {f"page/{found}" for found in re.findall(r'from "\./([^"]+)"', source)}
    assert modules == {f"page/{name}" for name in page_files() if name.endswith(".js")}
    for path in {*named, *modules}:
        assert path is not None
        # Relative, so that the page works below a path of a proxy too.
        assert re.fullmatch(r"page/[a-z]+\.(css|js|svg)", path)
        found = service.http.get(f"/{path}")
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(
            ("text/css", "text/javascript", "image/svg")
        )
        assert found.headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_nothing_inline_and_nothing_from_elsewhere(service: Service) -> None:
    response = service.http.get("/")
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert response.headers["referrer-policy"] == "no-referrer"
    # Two policies would both hold, and the stricter of them would break the page.
    assert len(response.headers.get_list("content-security-policy")) == 1
    markup = Markup(response.text)
    assert markup.inline == ""
    for _, attributes in markup.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    for name, file in page_files().items():
        source = file.content.decode()
        elsewhere = re.findall(r"(?:https?:)?//[a-z][\w.-]+\.[a-z]+[^\s\"')]*", source)
        assert set(elsewhere) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source
        )
        assert not re.search(r"localStorage|sessionStorage|document\.cookie|indexedDB", source)


def test_a_page_that_is_known_already_is_not_sent_again(service: Service) -> None:
    first = service.http.get("/page/style.css")
    assert first.headers["cache-control"] == "no-cache"
    again = service.http.get("/page/style.css", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = service.http.get("/page/style.css", headers={"if-none-match": '"another"'})
    assert other.status_code == 200


def test_the_head_of_the_page_is_answered_without_its_body(service: Service) -> None:
    head = service.http.head("/")
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(service.http.get("/").content))


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/..%2fapp.py", "/page/"])
def test_no_other_file_is_served(service: Service, path: str) -> None:
    response = service.http.get(path)
    assert response.status_code == 404
    assert set(response.json()) >= {"error", "error_type", "code"}


def test_the_page_is_counted_under_its_two_routes(service: Service) -> None:
    service.http.get("/")
    service.http.get("/page/main.js")
    metrics = service.http.get("/metrics").text
    assert 'retrikt_student_requests_total{outcome="ok",route="/"}' in metrics
    assert 'retrikt_student_requests_total{outcome="ok",route="/page/{name}"}' in metrics
    assert "main.js" not in metrics


def test_the_weights_of_the_neighbours_make_what_the_store_says(service: Service) -> None:
    answer = service.predict("wifi slow", explain=True).json()["predictions"][0]
    neighbours = answer["neighbours"]
    weights = [neighbour["weight"] for neighbour in neighbours]
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > weights[-1]
    made = {
        label: sum(neighbour["weight"] * neighbour["labels"][label] for neighbour in neighbours)
        for label in tiny_release.LABELS
    }
    total = sum(made.values())
    assert {label: value / total for label, value in made.items()} == pytest.approx(
        answer["store"], abs=1e-4
    )


def test_info_offers_the_examples_that_somebody_chose(service: Service) -> None:
    assert service.http.get("/info").json()["examples"] == CHOSEN


def test_without_a_file_of_examples_there_are_none(tmp_path: Path) -> None:
    assert read_examples(tmp_path) == []


def test_examples_are_texts_or_pairs_and_not_without_end(tmp_path: Path) -> None:
    many = ["a text", ["first", "second"]] * MOST_EXAMPLES
    (tmp_path / EXAMPLES).write_text(json.dumps(many), encoding="utf-8")
    read = read_examples(tmp_path)
    assert len(read) == MOST_EXAMPLES
    assert read[:2] == ["a text", ("first", "second")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"inputs": "a"}', "list"),
        ("[1]", r"\[0\]"),
        ('["a", ["only one"]]', r"\[1\]"),
        ("not JSON", "JSON"),
        (json.dumps(["a" * MOST_BYTES]), "bytes"),
    ],
)
def test_a_file_that_holds_no_examples_is_refused_and_named(
    tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / EXAMPLES).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidData, match=told) as error:
        read_examples(tmp_path)
    assert EXAMPLES in str(error.value)


def test_a_damaged_file_of_examples_keeps_nobody_from_being_answered(task: TinyTask) -> None:
    (task.directory / EXAMPLES).write_text("[", encoding="utf-8")
    with student(task) as service:
        assert service.http.get("/info").json()["examples"] == []
        assert service.predict("wifi slow").status_code == 200
        assert "examples_left_out" in service.events()
