"""Keys: every combination of permissions and keys, where they are read from, and what a refusal says."""

from itertools import chain, combinations
from pathlib import Path

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.testclient import TestClient

from services.platform.auth import PERMISSIONS, Keys, KeySettings, Permission, is_local, requires
from services.platform.errors import InvalidConfig, NotAuthenticated, PermissionDenied
from services.platform.http import install_error_handlers

KEYS: dict[Permission, str] = {
    "read": "read-key-0123456789",
    "text": "text-key-0123456789",
    "write": "write-key-0123456789",
}
NOBODY, STRANGER = None, "Bearer a-key-that-nobody-has"

SUBSETS = list(chain.from_iterable(combinations(PERMISSIONS, size) for size in range(4)))

# Which permissions have keys → who sends what → what they may do.
EVERYTHING = {"read", "text", "write"}
MAY: dict[tuple[str, ...], dict[str, set[str]]] = {
    (): {"nobody": EVERYTHING},
    ("read",): {"nobody": set(), "read": {"read", "text"}},
    ("text",): {"nobody": {"read"}, "text": {"read", "text"}},
    ("write",): {"nobody": {"read", "text"}, "write": EVERYTHING},
    ("read", "text"): {"nobody": set(), "read": {"read"}, "text": {"read", "text"}},
    ("read", "write"): {"nobody": set(), "read": {"read", "text"}, "write": EVERYTHING},
    ("text", "write"): {"nobody": {"read"}, "text": {"read", "text"}, "write": {"read", "write"}},
    ("read", "text", "write"): {
        "nobody": set(),
        "read": {"read"},
        "text": {"read", "text"},
        "write": {"read", "write"},
    },
}


def bearer(key: str) -> str:
    return f"Bearer {key}"


@pytest.mark.parametrize("with_keys", SUBSETS, ids=lambda names: "+".join(names) or "none")
def test_every_key_may_do_what_the_table_says_and_no_more(
    with_keys: tuple[Permission, ...],
) -> None:
    keys = Keys({permission: [KEYS[permission]] for permission in with_keys})
    senders = {"nobody": NOBODY} | {name: bearer(KEYS[name]) for name in with_keys}
    for sender, authorization in senders.items():
        expected = MAY[with_keys][sender]
        assert keys.granted(authorization) == expected
        for permission in PERMISSIONS:
            if permission in expected:
                assert keys.check(authorization, permission) == expected
            else:
                refused = NotAuthenticated if authorization is None else PermissionDenied
                with pytest.raises(refused, match=permission):
                    keys.check(authorization, permission)
    # A key that is not known is worth as much as none.
    assert keys.granted(STRANGER) == MAY[with_keys]["nobody"]


@pytest.mark.parametrize(
    "authorization",
    [
        "read-key-0123456789",
        "Basic read-key-0123456789",
        "Bearer",
        "Bearer ",
        "Bearer read-key-012345678",
        "Bearer read-key-01234567890",
        "Bearer READ-KEY-0123456789",
        "Bearer \udce9\x00",
        "",
    ],
)
def test_what_is_not_exactly_the_key_is_refused(authorization: str) -> None:
    with pytest.raises(NotAuthenticated):
        Keys({"read": [KEYS["read"]]}).check(authorization, "read")


def test_a_key_in_two_lists_may_do_both_and_old_and_new_keys_hold_beside_each_other() -> None:
    keys = Keys({"read": ["r" * 20, "s" * 20], "text": ["s" * 20], "write": ["w" * 20, "s" * 20]})
    assert keys.granted(bearer("s" * 20)) == EVERYTHING
    assert keys.granted("bearer " + "r" * 20) == {"read"}


def test_keys_come_from_variables_and_files_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(KeySettings):
        model_config = KeySettings.model_config | {"env_prefix": "RETRIKT_TOY_"}

    file = tmp_path / "keys"
    file.write_text(f"# the dashboard\n{'f' * 20}\n\n  {'g' * 20}  \n")
    monkeypatch.setenv("RETRIKT_TOY_READ_KEYS", f"{'a' * 20}, {'b' * 20}")
    monkeypatch.setenv("RETRIKT_TOY_READ_KEYS_FILE", str(file))
    monkeypatch.setenv("RETRIKT_TOY_TEXT_KEYS", "")
    settings = Settings()
    keys = Keys.from_settings(settings)
    for letter in "abfg":
        assert keys.granted(bearer(letter * 20)) == {"read", "text"}
    assert keys.granted(None) == set()
    assert (keys.has("read"), keys.has("text"), keys.has("write")) == (True, False, False)
    assert "a" * 20 not in repr(settings)
    assert not any("a" * 20 in repr(value) for value in vars(keys).values())


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"short\n", b"\xff\xfe", None])
def test_a_file_without_a_usable_key_opens_nothing_but_ends_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidConfig):
        Keys.from_settings(KeySettings(write_keys_file=file))


def test_a_key_that_is_refused_is_not_told() -> None:
    with pytest.raises(InvalidConfig, match="write key 1") as caught:
        Keys({"write": ["too-short"]})
    assert "too-short" not in str(caught.value)


def test_a_route_answers_401_or_403_and_hands_over_what_is_granted() -> None:
    keys = Keys({permission: [key] for permission, key in KEYS.items()})
    router = APIRouter()

    @router.get("/texts")
    async def texts(granted: frozenset[str] = Depends(requires(keys, "text"))) -> list[str]:
        return sorted(granted)

    app = FastAPI()
    app.include_router(router)
    install_error_handlers(app)
    with TestClient(app) as client:
        absent = client.get("/texts")
        assert (absent.status_code, absent.json()["code"]) == (401, "not_authenticated")
        assert absent.headers["www-authenticate"] == "Bearer"
        wrong = client.get("/texts", headers={"authorization": bearer(KEYS["write"])})
        assert (wrong.status_code, wrong.json()["code"]) == (403, "permission_denied")
        right = client.get("/texts", headers={"authorization": bearer(KEYS["text"])})
        assert right.json() == ["read", "text"]
        assert client.get("/openapi.json").json()["paths"]["/texts"]["get"]["security"] == [
            {"key": []}
        ]


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_only_loopback_addresses_are_local(host: str, local: bool) -> None:
    assert is_local(host) is local
