"""Alerts and dashboard ask for metrics that both services really expose, by labels that these really have."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "deploy"), str(ROOT / "tests" / "services" / "student")]

import compose_files  # noqa: E402
from tiny_task import build_task  # noqa: E402

from services.platform.errors import RetriktError  # noqa: E402
from services.store.app import create_app as create_store  # noqa: E402
from services.store.settings import StoreSettings  # noqa: E402
from services.student.app import create_app as create_student  # noqa: E402
from services.student.settings import StudentSettings  # noqa: E402

FILES = ROOT / "deploy" / "observability"
COMPOSE = ROOT / "deploy" / "compose.observability.yml"
ALERTS = yaml.safe_load((FILES / "alerts.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((FILES / "grafana" / "dashboards" / "retrikt.json").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
RAISED = [rule for rule in RULES if "alert" in rule]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = {"up": set[str]()}
OF_TARGETS = {"job", "instance"}
"""Metrics and labels that Prometheus itself puts to what it scrapes."""

Exposed = dict[str, set[str]]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], as_grafana_fills_in(target["expr"])
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], as_grafana_fills_in(annotation["expr"])


def as_grafana_fills_in(expression: str) -> str:
    return expression.replace("$__rate_interval", "1m").replace("$instance", ".*")


EXPRESSIONS = list(expressions())


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Exposed:
    """Names and labels of every sample of both services, after requests that went well and others."""
    folder = tmp_path_factory.mktemp("observed")
    task = build_task(folder / "tiny")
    common = {"task_dir": task.directory, "access_log": False}
    found: Exposed = {}
    for settings in (
        StudentSettings(**common, gap_log=folder / "gaps.jsonl"),
        StudentSettings(**common, store_url="http://127.0.0.1:1"),
    ):
        with TestClient(create_student(settings)) as client:
            assert client.post("/predict", json={"inputs": "wifi slow"}).status_code == 200
            assert client.post("/predict", json={}).status_code == 422
            collect(client, found)
    store = StoreSettings(
        directory=task.directory / "store",
        releases=task.directory / "releases",
        private_directory=folder / "private",
        access_log=False,
    )
    with TestClient(create_store(store)) as client:
        collect(client, found)
    return found


def collect(client: TestClient, found: Exposed) -> None:
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def grouped_by(expression: str) -> set[str]:
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            found.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS)
def test_every_expression_asks_for_metrics_and_labels_that_the_services_expose(
    exposed: Exposed, name: str, expression: str
) -> None:
    known = exposed | TARGETS | {rule["record"]: set() for rule in RULES if "record" in rule}
    asked = selectors(expression)
    assert asked, name
    labels: set[str] = set()
    for selector in asked:
        assert selector.name in known, f"{name} asks for {selector.name}"
        own = known[selector.name] | OF_TARGETS
        for matcher in selector.matchers.matchers:
            assert matcher.name in own, f"{name}: {selector.name} has no label {matcher.name}"
        labels |= own
    assert grouped_by(expression) <= labels, name


def test_a_rate_is_taken_of_counters_and_never_of_gauges(exposed: Exposed) -> None:
    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase"):
            (selector,) = selectors(str(node))
            ends = ("_total", "_bucket", "_sum", "_count")
            assert (selector.name or "").endswith(ends), selector.name

    for _, expression in EXPRESSIONS:
        promql_parser.walk(promql_parser.parse(expression), visit)


def test_failed_requests_are_those_with_codes_of_the_service_s_own_faults_and_no_others() -> None:
    def below(kind: type[RetriktError]) -> Iterator[type[RetriktError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    patterns = {
        matcher.value
        for _, expression in EXPRESSIONS
        for selector in selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "outcome" and "|" in matcher.value
    }
    (pattern,) = patterns
    for kind in below(RetriktError):
        own_fault = kind.status >= 500 or kind.status == 429
        assert bool(re.fullmatch(pattern, kind.code)) == own_fault, kind.code
    for outcome in ("ok", "client_gone", "no_such_path", "status_404"):
        assert not re.fullmatch(pattern, outcome)
    assert re.fullmatch(pattern, "status_503")


@pytest.mark.parametrize("rule", RAISED, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    guide = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    assert f"`{rule['alert']}`" in guide


def test_what_prometheus_scrapes_are_the_services_of_the_stack_under_the_names_that_alerts_use() -> (
    None
):
    scraped = yaml.safe_load((FILES / "prometheus.yml").read_text(encoding="utf-8"))
    services = compose_files.services(COMPOSE)
    for job in scraped["scrape_configs"]:
        (target,) = job["dns_sd_configs"]
        (name,) = target["names"]
        assert job["job_name"] == f"retrikt-{name}"
        assert services[name]["environment"][f"RETRIKT_{name.upper()}_PORT"] == str(target["port"])
        assert set(services[name]["networks"]) & set(services["prometheus"]["networks"])


def test_the_stack_mounts_files_that_are_there_and_where_they_are_looked_for() -> None:
    services = compose_files.services(COMPOSE)
    mounts = [
        volume.split(":")
        for name in ("prometheus", "grafana")
        for volume in services[name]["volumes"]
        if volume.startswith("./")
    ]
    assert all((ROOT / source).exists() and mode == "ro" for source, _, mode in mounts)
    inside = {target for _, target, _ in mounts}
    scraped = yaml.safe_load((FILES / "prometheus.yml").read_text(encoding="utf-8"))
    assert set(scraped["rule_files"]) <= inside
    provided = yaml.safe_load(
        (FILES / "grafana/provisioning/dashboards/retrikt.yml").read_text(encoding="utf-8")
    )
    assert provided["providers"][0]["options"]["path"] in inside
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) in inside
    source = yaml.safe_load(
        (FILES / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    )
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_its_containers_are_hardened_as_the_stack_s_own_are(name: str) -> None:
    service = compose_files.services(COMPOSE)[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not service["user"].startswith(("0:", "root"))
    assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_dashboard_s_panels_have_names_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
