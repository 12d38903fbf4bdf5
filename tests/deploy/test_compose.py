"""The compose files: hardened, pinned, in order, and in step with the services' settings."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from compose_files import BASE, EMBEDDED, services, stack  # noqa: E402

from services.platform.auth import Keys, KeySettings  # noqa: E402
from services.platform.errors import InvalidConfig  # noqa: E402
from services.platform.settings import load_settings  # noqa: E402
from services.store.settings import StoreSettings  # noqa: E402
from services.student.settings import StudentSettings  # noqa: E402

STACKS = pytest.mark.parametrize("overrides", [(), (EMBEDDED,)], ids=["qdrant", "embedded"])
SETTINGS: dict[str, type[KeySettings]] = {"store": StoreSettings, "student": StudentSettings}
PASSED_THROUGH = {
    "store": ("READ_KEYS_FILE", "TEXT_KEYS_FILE", "WRITE_KEYS_FILE", "CORS_ORIGINS"),
    "student": (
        *("READ_KEYS_FILE", "TEXT_KEYS_FILE", "CORS_ORIGINS"),
        *("STORE_KEY", "STORE_KEY_FILE"),
    ),
}


@STACKS
def test_every_container_is_non_root_read_only_and_cannot_gain_rights(
    overrides: tuple[Path, ...],
) -> None:
    for name, service in services(*overrides).items():
        user, _, group = str(service["user"]).partition(":")
        assert int(user) >= 1000, name
        assert int(group) >= 1000, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] > 0, name
        assert any(entry.startswith("/tmp:") for entry in service["tmpfs"]), name
        assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & set(service)


@STACKS
def test_every_image_is_pinned_by_tag(overrides: tuple[Path, ...]) -> None:
    for name, service in services(*overrides).items():
        repository, _, tag = service["image"].rpartition(":")
        assert repository, name
        assert re.fullmatch(r"v?\d+\.\d+\.\d+(-[a-z]+)?", tag), name


@STACKS
def test_services_that_stay_up_have_health_checks_and_start_after_what_they_need(
    overrides: tuple[Path, ...],
) -> None:
    found = services(*overrides)
    for name, service in found.items():
        if "profiles" in service:
            continue
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
    for name, service in found.items():
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in found, name
            assert condition == {"condition": "service_healthy"}, name
    assert "store" in found["student"]["depends_on"]
    if not overrides:
        assert "qdrant" in found["store"]["depends_on"]
        assert "qdrant" in found["offline"]["depends_on"]


@STACKS
def test_the_offline_jobs_start_only_when_asked_for(overrides: tuple[Path, ...]) -> None:
    profiles = {name: service.get("profiles") for name, service in services(*overrides).items()}
    assert profiles.pop("offline") == ["jobs"]
    assert set(profiles.values()) == {None}


def test_the_files_hold_no_secret() -> None:
    for overrides in ((), (EMBEDDED,)):
        for name, service in services(*overrides).items():
            for variable, value in service.get("environment", {}).items():
                if re.search(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", variable):
                    assert value == "", f"{variable} of {name} has a default"
                assert not re.search(r"://[^/]*@", str(value)), variable
                # What looks drawn at random: long, without a separator, letters and digits.
                assert not re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9+=]{20,}", str(value))


@STACKS
@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_variable_is_a_setting_and_its_value_is_accepted(
    name: str, overrides: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, kind = services(*overrides)[name], SETTINGS[name]
    prefix = f"RETRIKT_{name.upper()}_"
    for variable, value in service["environment"].items():
        assert variable.removeprefix(prefix).lower() in kind.model_fields, variable
        assert variable.startswith(prefix)
        monkeypatch.setenv(variable, value)
    settings = load_settings(kind)
    assert not Keys.from_settings(settings).any
    assert settings.cors_origins == ()
    assert settings.host == "0.0.0.0"
    assert f"http://127.0.0.1:{settings.port}/readyz" in service["healthcheck"]["test"][-1]
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_seconds


@STACKS
@pytest.mark.parametrize("name", list(SETTINGS))
def test_keys_and_origins_come_from_the_variables_of_the_same_name(
    name: str, overrides: tuple[Path, ...]
) -> None:
    prefix = f"RETRIKT_{name.upper()}_"
    expected = {f"{prefix}{setting}" for setting in PASSED_THROUGH[name]}
    assert expected <= set(services(*overrides)[name]["environment"])
    for variable in expected:
        assert f'{variable}: "${{{variable}:-}}"\n' in BASE.read_text(encoding="utf-8")


def test_a_student_takes_the_key_of_the_store_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text(f"# of the student\n{'s' * 20}\n", encoding="utf-8")
    for variable, value in services()["student"]["environment"].items():
        monkeypatch.setenv(variable, value)
    assert load_settings(StudentSettings).key_of_store() is None
    monkeypatch.setenv("RETRIKT_STUDENT_STORE_KEY_FILE", str(file))
    assert load_settings(StudentSettings).key_of_store() == "s" * 20
    monkeypatch.setenv("RETRIKT_STUDENT_STORE_KEY", "v" * 20)
    with pytest.raises(InvalidConfig, match="more than one key") as told:
        load_settings(StudentSettings).key_of_store()
    assert "vvvv" not in str(told.value)
    monkeypatch.setenv("RETRIKT_STUDENT_STORE_KEY_FILE", "")
    assert load_settings(StudentSettings).key_of_store() == "v" * 20


@STACKS
def test_no_service_waits_long_for_the_name_of_a_container_that_is_gone(
    overrides: tuple[Path, ...],
) -> None:
    for name, service in services(*overrides).items():
        if "profiles" not in service:
            assert set(service["dns_opt"]) == {"timeout:1", "attempts:1"}, name


def test_the_student_asks_the_store_of_the_same_stack() -> None:
    for overrides in ((), (EMBEDDED,)):
        found = services(*overrides)
        port = found["store"]["environment"]["RETRIKT_STORE_PORT"]
        url = found["student"]["environment"]["RETRIKT_STUDENT_STORE_URL"]
        assert url == f"http://store:{port}"
        assert set(found["student"]["networks"]) & set(found["store"]["networks"])


def test_qdrant_is_reached_by_the_store_and_the_jobs_alone() -> None:
    found = services()
    [network] = found["qdrant"]["networks"]
    assert stack()["networks"][network] == {"internal": True}
    assert {name for name, service in found.items() if network in service["networks"]} == {
        "qdrant",
        "store",
        "offline",
    }
    assert found["store"]["environment"]["RETRIKT_STORE_QDRANT_URL"] == "http://qdrant:6333"
    assert found["offline"]["environment"]["RETRIKT_JOBS_QDRANT_URL"] == "http://qdrant:6333"


def test_only_the_student_is_published_and_only_on_this_machine() -> None:
    for overrides in ((), (EMBEDDED,)):
        published = {
            name: service["ports"]
            for name, service in services(*overrides).items()
            if "ports" in service
        }
        assert published == {"student": ["127.0.0.1:8000:8000"]}


def test_services_read_the_task_directories_and_only_the_jobs_write_them() -> None:
    for overrides in ((), (EMBEDDED,)):
        modes = {
            name: mount.endswith(":ro")
            for name, service in services(*overrides).items()
            for mount in service.get("volumes", [])
            if mount.startswith("runs:")
        }
        assert modes.pop("offline") is False
        assert all(modes.values())
        assert "student" in modes


def test_the_embedded_stack_has_no_qdrant_and_searches_copies_of_its_own() -> None:
    embedded = stack(EMBEDDED)
    assert set(embedded["services"]) == {"store", "student", "offline"}
    environment = embedded["services"]["store"]["environment"]
    assert environment["RETRIKT_STORE_BACKEND"] == "edge"
    copies = environment["RETRIKT_STORE_PRIVATE_DIRECTORY"]
    assert f"store-copies:{copies}" in embedded["services"]["store"]["volumes"]
    task = embedded["services"]["student"]["environment"]["RETRIKT_STUDENT_TASK_DIR"]
    assert environment["RETRIKT_STORE_DIRECTORY"] == f"{task}/store"
    assert environment["RETRIKT_STORE_RELEASES"] == f"{task}/releases"
    assert "RETRIKT_JOBS_QDRANT_URL" not in embedded["services"]["offline"].get("environment", {})


@STACKS
def test_networks_and_volumes_that_are_used_are_declared(overrides: tuple[Path, ...]) -> None:
    merged: dict[str, Any] = stack(*overrides)
    for service in merged["services"].values():
        assert set(service["networks"]) <= set(merged["networks"])
        for mount in service.get("volumes", []):
            assert mount.split(":")[0] in merged["volumes"]


def test_the_base_file_needs_no_tag_that_old_readers_do_not_know() -> None:
    assert yaml.safe_load(BASE.read_text(encoding="utf-8"))["name"] == "retrikt"
