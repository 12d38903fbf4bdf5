"""Which keys open what, as a table, and every route that an application really has."""

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

KEYS = {name: f"{name}-key-0123456789" for name in ("read", "text", "write")}
WRONG = {"authorization": "Bearer nobody-knows-this-key"}

# Which permissions have keys → who asks → what they may do.
MAY: dict[tuple[str, ...], dict[str, set[str]]] = {
    (): {"nobody": {"read", "text", "write"}},
    ("read",): {"nobody": set(), "read": {"read", "text"}},
    ("text",): {"nobody": {"read"}, "text": {"read", "text"}},
    ("write",): {"nobody": {"read", "text"}, "write": {"read", "text", "write"}},
    ("read", "text"): {"nobody": set(), "read": {"read"}, "text": {"read", "text"}},
    ("read", "write"): {
        "nobody": set(),
        "read": {"read", "text"},
        "write": {"read", "text", "write"},
    },
    ("text", "write"): {"nobody": {"read"}, "text": {"read", "text"}, "write": {"read", "write"}},
    ("read", "text", "write"): {
        "nobody": set(),
        "read": {"read"},
        "text": {"read", "text"},
        "write": {"read", "write"},
    },
}


def bearer(name: str) -> dict[str, str]:
    """Headers of a caller with the key of that permission; `nobody` has none."""
    return {"authorization": f"Bearer {KEYS[name]}"} if name in KEYS else {}


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """Method and path of every route, those included that the OpenAPI document leaves out."""
    return {
        (method, str(context.path))
        for context in iter_route_contexts(app.routes)
        for method in context.methods or ()
        if method != "HEAD"  # Whatever answers GET answers it without the body.
    }
