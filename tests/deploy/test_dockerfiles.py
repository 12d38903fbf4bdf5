"""The Dockerfiles: the right extras, no torch where it serves, non-root, nothing left to chance."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from compose_files import ROOT, services  # noqa: E402

FOLDER = ROOT / "deploy" / "docker"
EACH = pytest.mark.parametrize("name", ["store", "student", "offline"])
SERVING = pytest.mark.parametrize("name", ["store", "student"])


def instructions(name: str) -> list[str]:
    """The instructions of a Dockerfile, each on one line."""
    text = (FOLDER / f"{name}.Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line for line in joined.splitlines() if line.strip()]


def final_stage(name: str) -> list[str]:
    lines = instructions(name)
    last = max(place for place, line in enumerate(lines) if line.startswith("FROM "))
    return lines[last:]


@EACH
def test_both_stages_stand_on_a_base_that_is_an_argument_pinned_by_tag(name: str) -> None:
    lines = instructions(name)
    assert lines[0] == "ARG BASE=python:3.11-slim"
    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM ${BASE} AS build",
        "FROM ${BASE}",
    ]


@EACH
def test_the_extra_of_the_image_is_installed_and_no_other(name: str) -> None:
    extras = re.findall(r'pip install "\.\[([a-z,]+)\]"', "\n".join(instructions(name)))
    assert extras == [name]


@SERVING
def test_serving_images_install_no_torch_and_their_build_refuses_it(name: str) -> None:
    text = "\n".join(instructions(name))
    assert not re.search(r"pip install[^&\n]*torch", text)
    assert "('torch', 'transformers') if importlib.util.find_spec" in text


def test_torch_comes_first_in_the_offline_image_in_the_version_of_the_project() -> None:
    text = "\n".join(instructions("offline"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [pinned] = [
        item for item in project["optional-dependencies"]["offline"] if item.startswith("torch==")
    ]
    assert pinned in text
    assert text.index(pinned) < text.index('".[offline]"')


@EACH
def test_the_image_runs_as_the_user_that_compose_gives_it(name: str) -> None:
    assert f"USER {services()[name]['user']}" in final_stage(name)


@EACH
def test_directories_that_volumes_are_mounted_on_belong_to_that_user(name: str) -> None:
    made = next(line for line in final_stage(name) if "install --directory" in line)
    assert "--owner=10001 --group=10001" in made
    for mount in services()[name].get("volumes", []):
        assert mount.split(":")[1] in made


@EACH
def test_the_version_of_the_image_is_the_version_of_the_project(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert services()[name]["image"] == f"retrikt-{name}:{project['version']}"


@SERVING
def test_services_start_as_modules_without_a_shell_between_them_and_signals(name: str) -> None:
    assert f'CMD ["python", "-m", "services.{name}"]' in final_stage(name)


@SERVING
def test_an_image_that_runs_alone_has_the_health_check_of_compose(name: str) -> None:
    [line] = [line for line in final_stage(name) if line.startswith("HEALTHCHECK ")]
    options, _, command = line.partition(" CMD ")
    check = services()[name]["healthcheck"]
    assert ["CMD", *json.loads(command)] == check["test"]
    given = dict(re.findall(r"--([a-z-]+)=(\S+)", options))
    assert given == {
        key.replace("_", "-"): str(value) for key, value in check.items() if key != "test"
    }


@EACH
def test_every_image_is_trimmed_before_it_is_copied_and_still_loads(name: str) -> None:
    [line] = [line for line in instructions(name) if "./trim.sh /opt/retrikt" in line]
    before, _, after = line.partition("./trim.sh /opt/retrikt")
    assert "pip uninstall --yes pip" in before
    assert '-P -c "import ' in after
    assert line not in final_stage(name)


def test_trimming_takes_test_suites_headers_and_arrows_clients_and_leaves_the_rest(
    tmp_path: Path,
) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    gone = (
        *("numpy/tests/test_a.py", "numpy/linalg/tests/test_b.py", "torch/test/c.bin"),
        *("torch/include/d.h", "torch/bin/protoc-3.13.0.0", "pyarrow/include/e.h"),
        *("pyarrow/libarrow_flight.so.2600", "pyarrow/libarrow_python_flight.so"),
        *("pyarrow/_s3fs.cpython-311-x86_64-linux-gnu.so", "pyarrow/libarrow_s3.so.2600"),
    )
    kept = (
        *("numpy/testing/f.py", "torch/lib/libtorch.so", "torch/bin/torch_shm_manager"),
        *("pyarrow/libarrow.so.2600", "pyarrow/_fs.cpython-311-x86_64-linux-gnu.so"),
        *("pyarrow/libarrow_substrait.so.2600", "pyarrow/_s3fs.pyx", "jinja2/tests.py"),
    )
    for name in (*gone, *kept):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    for _ in range(2):
        subprocess.run(["sh", str(FOLDER / "trim.sh"), str(tmp_path)], check=True)
        left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
        assert left == set(kept)


@pytest.mark.parametrize("name", ["student", "offline"])
def test_images_that_hold_onnx_runtime_tell_it_not_to_report(name: str) -> None:
    [environment] = [line for line in final_stage(name) if line.startswith("ENV ")]
    assert "ORT_DISABLE_TELEMETRY=1" in environment.split()


@EACH
def test_no_secret_is_copied_into_an_image(name: str) -> None:
    text = "\n".join(instructions(name))
    assert not re.search(r"^(ARG|ENV) .*(TOKEN|PASSWORD|SECRET|_KEY)", text, re.MULTILINE)
    copied = [line for line in instructions(name) if line.startswith(("COPY", "ADD"))]
    assert all(not re.search(r"\bpip\.conf\b|\.env\b|COPY \. ", line) for line in copied)


def test_what_is_copied_passes_the_ignore_file() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    for name in ("store", "student", "offline"):
        for line in instructions(name):
            if line.startswith("COPY") and "--from" not in line:
                words = [word for word in line.split()[1:-1] if not word.startswith("--")]
                assert {word.split("/")[0] for word in words} <= kept, line


def entrypoint(directory: Path, *arguments: str, **environment: str) -> list[str]:
    """What the offline image's entry point hands to `retrikt`."""
    program = directory / "retrikt"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    done = subprocess.run(
        ["sh", str(FOLDER / "offline-entrypoint.sh"), *arguments],
        env={"PATH": f"{directory}:/usr/bin:/bin", **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()


def test_a_job_puts_its_store_version_on_the_qdrant_server_of_the_stack(tmp_path: Path) -> None:
    url = "http://qdrant:6333"
    for job in ("run", "rebuild"):
        handed = entrypoint(tmp_path, job, "helpdesk", "--seed", "1", RETRIKT_JOBS_QDRANT_URL=url)
        assert handed == [
            *(job, "helpdesk", "--seed", "1"),
            *("--set", "store.backend=server", "--set", f"store.url={url}"),
        ]


def test_without_a_server_and_for_other_commands_the_arguments_stay_as_they_are(
    tmp_path: Path,
) -> None:
    assert entrypoint(tmp_path, "run", "a b") == ["run", "a b"]
    listed = entrypoint(tmp_path, "release", "list", RETRIKT_JOBS_QDRANT_URL="http://qdrant:6333")
    assert listed == ["release", "list"]


@pytest.mark.parametrize(
    "script",
    [
        "deploy/try_stack.sh",
        "deploy/docker/offline-entrypoint.sh",
        "deploy/docker/trim.sh",
    ],
)
def test_scripts_parse_and_are_executable(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)
