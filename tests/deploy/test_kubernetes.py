"""The Kubernetes manifests: what the published schemas take, hardened, and in step with services and compose."""

import re
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from compose_files import services  # noqa: E402
from kubernetes_files import (  # noqa: E402
    FOLDER,
    OVERLAYS,
    container,
    manifests,
    one,
    pods,
    rendered,
)

from offline.configs.run import load_run_config  # noqa: E402
from offline.rebuild import REFUSED_STATUS  # noqa: E402
from services.platform import errors  # noqa: E402
from services.platform.auth import Keys, KeySettings  # noqa: E402
from services.platform.settings import load_settings  # noqa: E402
from services.store.settings import StoreSettings  # noqa: E402
from services.student.settings import StudentSettings  # noqa: E402

EACH = pytest.mark.parametrize("overlay", OVERLAYS)
SETTINGS: dict[str, type[KeySettings]] = {"store": StoreSettings, "student": StudentSettings}
SERVICE = pytest.mark.parametrize("name", list(SETTINGS))
OLDEST = "1.31"
"""The first version in which all that is used here is stable or on by default."""


@pytest.mark.parametrize(
    ("overlay", "version"),
    [("embedded", OLDEST), ("cluster", OLDEST), ("cluster", kubernetes_validate.latest_version())],
)
def test_every_resource_is_what_the_published_schema_takes(overlay: str, version: str) -> None:
    for resource in rendered(overlay):
        kubernetes_validate.validate(resource, version, strict=True)


def test_the_schema_refuses_a_field_that_is_misspelt() -> None:
    [claim] = manifests(FOLDER / "base" / "runs.yaml")
    kubernetes_validate.validate(claim, OLDEST, strict=True)
    claim["spec"]["accessMode"] = claim["spec"].pop("accessModes")
    with pytest.raises(kubernetes_validate.ValidationError, match="accessMode"):
        kubernetes_validate.validate(claim, OLDEST, strict=True)


def test_every_file_is_named_by_a_kustomization_and_every_name_is_a_file() -> None:
    named: set[Path] = set()
    for path in FOLDER.rglob("kustomization.yaml"):
        [kustomization] = manifests(path)
        entries = [
            *kustomization["resources"],
            *(patch["path"] for patch in kustomization.get("patches", [])),
        ]
        for entry in entries:
            target = (path.parent / entry).resolve()
            assert target.exists(), f"{path} names {entry}"
            named.add(target)
    files = {path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files == {path for path in named if path.is_file()}


@EACH
def test_every_pod_is_non_root_read_only_and_cannot_gain_rights(overlay: str) -> None:
    assert one(overlay, "Namespace", "retrikt")["metadata"]["labels"][
        "pod-security.kubernetes.io/enforce"
    ] == "restricted"  # fmt: skip
    for name, pod in pods(overlay).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] >= 1000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec), name
        assert container(overlay, name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert all("hostPath" not in volume for volume in spec["volumes"]), name


@EACH
def test_no_pod_takes_the_variables_of_a_service_for_settings(overlay: str) -> None:
    for name, pod in pods(overlay).items():
        assert pod["spec"]["enableServiceLinks"] is False, name


@EACH
def test_every_pod_asks_for_what_it_needs_and_has_a_limit_of_memory(overlay: str) -> None:
    for name in pods(overlay):
        resources = container(overlay, name)["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}, name
        assert "memory" in resources["limits"], name


@EACH
@SERVICE
def test_every_variable_is_a_setting_and_its_value_is_accepted(
    name: str, overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"RETRIKT_{name.upper()}_"
    for variable, value in one(overlay, "ConfigMap", name)["data"].items():
        assert variable.removeprefix(prefix).lower() in SETTINGS[name].model_fields, variable
        monkeypatch.setenv(variable, value)
    settings = load_settings(SETTINGS[name])
    assert not Keys.from_settings(settings).any
    assert settings.host == "0.0.0.0"
    [port] = container(overlay, name)["ports"]
    assert settings.port == port["containerPort"]
    wait = int(container(overlay, name)["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = pods(overlay)[name]["spec"]["terminationGracePeriodSeconds"]
    assert grace > wait + settings.drain_seconds


@EACH
@SERVICE
def test_probes_ask_livez_for_a_restart_and_readyz_for_traffic(name: str, overlay: str) -> None:
    found = container(overlay, name)
    paths = {probe: found[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness")}
    assert paths == {key: {"path": "/livez", "port": "http"} for key in paths}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@EACH
def test_services_and_budgets_choose_the_pods_that_they_are_named_after(overlay: str) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(overlay).items()}
    for item in rendered(overlay):
        if item["kind"] not in ("Service", "PodDisruptionBudget"):
            continue
        selector = item["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        chosen = [name for name, own in labels.items() if selector.items() <= own.items()]
        assert chosen == [item["metadata"]["name"].removesuffix("-peers")]
        ports = {port["name"] for port in container(overlay, chosen[0])["ports"]}
        assert {port["targetPort"] for port in item["spec"].get("ports", [])} <= ports


@EACH
def test_the_student_asks_the_store_of_the_same_overlay(overlay: str) -> None:
    url = one(overlay, "ConfigMap", "student")["data"]["RETRIKT_STUDENT_STORE_URL"]
    [port] = one(overlay, "Service", "store")["spec"]["ports"]
    assert url == f"http://store:{port['port']}"


@EACH
def test_services_read_the_task_directories_and_only_the_rebuilds_write_them(overlay: str) -> None:
    modes = {
        name: mount.get("readOnly", False)
        for name in pods(overlay)
        for mount in container(overlay, name)["volumeMounts"]
        if mount["name"] == "runs"
    }
    assert modes.pop("rebuild") is False
    assert set(modes) == ({"student", "store"} if overlay == "embedded" else {"student"})
    assert all(modes.values())


@EACH
def test_volumes_that_are_mounted_are_declared_and_their_claims_exist(overlay: str) -> None:
    claims = {
        item["metadata"]["name"]
        for item in rendered(overlay)
        if item["kind"] == "PersistentVolumeClaim"
    }
    templates = {
        template["metadata"]["name"]
        for item in rendered(overlay)
        for template in item.get("spec", {}).get("volumeClaimTemplates", [])
    }
    for name, pod in pods(overlay).items():
        declared = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounted = {mount["name"] for mount in container(overlay, name)["volumeMounts"]}
        own = templates if name == "qdrant" else set()
        assert mounted == set(declared) | own, name
        for volume in declared.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


@EACH
def test_mounts_images_and_arguments_are_those_of_the_compose_stack(overlay: str) -> None:
    for name, service in (("store", "store"), ("student", "student"), ("rebuild", "offline")):
        assert container(overlay, name)["image"] == services()[service]["image"]
    mounts = {mount.split(":")[1] for mount in services()["offline"]["volumes"]} | {"/tmp"}
    found = container(overlay, "rebuild")
    assert {mount["mountPath"] for mount in found["volumeMounts"]} == mounts
    task = one(overlay, "ConfigMap", "student")["data"]["RETRIKT_STUDENT_TASK_DIR"]
    assert task == services()["student"]["environment"]["RETRIKT_STUDENT_TASK_DIR"]


@EACH
def test_the_scheduled_job_is_retrikt_rebuild_one_at_a_time(overlay: str) -> None:
    found = one(overlay, "CronJob", "rebuild")["spec"]
    assert found["concurrencyPolicy"] == "Forbid"
    # The image's entry point puts `retrikt` in front.
    assert "command" not in container(overlay, "rebuild")
    assert container(overlay, "rebuild")["args"][:2] == ["rebuild", "helpdesk"]


@EACH
def test_a_rebuild_is_tried_again_only_where_that_may_help(overlay: str) -> None:
    job = one(overlay, "CronJob", "rebuild")["spec"]["jobTemplate"]["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    given_up = set(job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"])
    hopeless = (
        *(errors.InvalidConfig, errors.InvalidData, errors.ModelNotFound),
        *(errors.CorruptArtifact, errors.IncompatibleArtifacts),
    )
    assert given_up == {error.exit_code for error in hopeless} | {REFUSED_STATUS}
    hopeful = (errors.StoreUnavailable, errors.StorageFull, errors.AlreadyRunning)
    assert not given_up & {error.exit_code for error in hopeful}


def test_the_embedded_overlay_searches_copies_on_the_node_of_the_others() -> None:
    data = one("embedded", "ConfigMap", "store")["data"]
    assert data["RETRIKT_STORE_BACKEND"] == "edge"
    task = one("embedded", "ConfigMap", "student")["data"]["RETRIKT_STUDENT_TASK_DIR"]
    assert data["RETRIKT_STORE_DIRECTORY"] == f"{task}/store"
    assert data["RETRIKT_STORE_RELEASES"] == f"{task}/releases"
    mounts = container("embedded", "store")["volumeMounts"]
    paths = {mount["mountPath"]: mount for mount in mounts}
    assert not paths[data["RETRIKT_STORE_PRIVATE_DIRECTORY"]].get("readOnly")
    claim = one("embedded", "PersistentVolumeClaim", "runs")["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]
    for name, pod in pods("embedded").items():
        [term] = pod["spec"]["affinity"]["podAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        # The first of them chooses the node: a pod may ask for its own like.
        assert term["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert term["topologyKey"] == "kubernetes.io/hostname", name


def test_the_cluster_overlay_puts_versions_on_the_qdrant_that_the_store_searches() -> None:
    url = one("cluster", "ConfigMap", "store")["data"]["RETRIKT_STORE_QDRANT_URL"]
    job = one("cluster", "ConfigMap", "rebuild")
    assert job["data"] == {"RETRIKT_JOBS_QDRANT_URL": url}
    [source] = container("cluster", "rebuild")["envFrom"]
    assert source["configMapRef"]["name"] == job["metadata"]["name"]
    ports = {
        port["name"]: port["port"] for port in one("cluster", "Service", "qdrant")["spec"]["ports"]
    }
    assert url == f"http://qdrant:{ports['http']}"
    assert container("cluster", "qdrant")["image"] == services()["qdrant"]["image"]


def test_the_peers_of_the_qdrant_cluster_are_reached_by_the_names_they_give() -> None:
    peers = one("cluster", "StatefulSet", "qdrant")["spec"]
    service = one("cluster", "Service", peers["serviceName"])["spec"]
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    [script] = container("cluster", "qdrant")["args"]
    [port] = service["ports"]
    assert set(re.findall(r"http://\S+", script)) == {
        f"http://$HOSTNAME.{peers['serviceName']}:{port['port']}",
        f"http://qdrant-0.{peers['serviceName']}:{port['port']}",
    }


def test_one_node_of_the_qdrant_cluster_may_go_and_every_part_of_a_version_is_still_there() -> None:
    given = container("cluster", "rebuild")["args"][2:]
    overrides = [option.removeprefix("--set=") for option in given]
    # What the image's entry point adds where there is a server.
    layout = load_run_config("helpdesk", [*overrides, "store.backend=server"]).store.layout
    gone = one("cluster", "PodDisruptionBudget", "qdrant")["spec"]["maxUnavailable"]
    assert layout.replicas > gone
    peers = one("cluster", "StatefulSet", "qdrant")["spec"]["replicas"]
    # An odd number, so that a majority is left.
    assert peers % 2 == 1
    assert peers - gone > peers / 2


@SERVICE
def test_services_of_the_cluster_grow_with_the_load_and_are_never_all_taken_away(name: str) -> None:
    scaler = one("cluster", "HorizontalPodAutoscaler", name)["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    assert scaler["minReplicas"] >= 2
    # Given in both places, each `kubectl apply` would undo what the scaler has done.
    assert "replicas" not in one("cluster", "Deployment", name)["spec"]
    assert one("cluster", "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
    assert pods("cluster")[name]["spec"]["topologySpreadConstraints"]


@EACH
def test_who_may_call_whom_is_what_the_compose_networks_say(overlay: str) -> None:
    policies = {
        item["metadata"]["name"]: item["spec"]
        for item in rendered(overlay)
        if item["kind"] == "NetworkPolicy"
    }
    assert policies.pop("nothing-by-default") == {"podSelector": {}, "policyTypes": ["Ingress"]}
    callers = {name: sorted(_callers(policy)) for name, policy in policies.items()}
    expected = {"student": ["everybody"], "store": ["monitoring", "student"]}
    if overlay == "cluster":
        expected["qdrant"] = ["monitoring", "qdrant", "rebuild", "store"]
    assert callers == expected


def _callers(policy: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for rule in policy["ingress"]:
        for source in rule.get("from", [{}]):
            if "namespaceSelector" in source:
                found += source["namespaceSelector"]["matchLabels"].values()
            elif "podSelector" in source:
                found += source["podSelector"].get("matchLabels", {}).values()
                for expression in source["podSelector"].get("matchExpressions", []):
                    found += expression["values"]
            else:
                found.append("everybody")
    return found
