"""What browsers are told: who may call the service from another origin, and what an answer is allowed to do."""

from collections.abc import Collection, Sequence

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.middleware.cors import CORSMiddleware

Header = tuple[bytes, bytes]

SECURITY_HEADERS = (
    # An answer is data: nothing in it is to be run, loaded or shown in a frame.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Whoever shares a machine or a proxy with the sender is not to find it there.
    (b"cache-control", b"no-store"),
)

_NAMES = frozenset(name for name, _ in SECURITY_HEADERS)

_DOCUMENTS_POLICY = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        "script-src 'unsafe-inline' https://cdn.jsdelivr.net",
        "style-src 'unsafe-inline' https://cdn.jsdelivr.net",
        "img-src data: https://fastapi.tiangolo.com",
        "frame-ancestors 'none'",
    )
)


def with_security_headers(headers: Collection[Header]) -> list[Header]:
    """An answer's headers, and those of `SECURITY_HEADERS` that are not among them."""
    for name, _ in headers:
        if name in _NAMES:
            given = {name for name, _ in headers}
            missing = (pair for pair in SECURITY_HEADERS if pair[0] not in given)
            return [*headers, *missing]
    return [*headers, *SECURITY_HEADERS]


def allow_origins(app: FastAPI, origins: Sequence[str], exposed: Sequence[str]) -> None:
    """Let pages of other origins call the service, with a key in `Authorization` where one is needed.

    Cookies are not used, so credentials in the sense of CORS are not allowed.

    Args:
        app: the middleware is added to; its other middleware should be there already.
        origins: `https://example.org`, or `*` for all.
        exposed: headers of answers that those pages may read.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "POST", "PUT", "DELETE"),
        # Those that are asked for are allowed: sent as it is, `*` would leave out `Authorization`.
        allow_headers=("*",),
        expose_headers=exposed,
        max_age=600,
    )


def documents_router(title: str) -> APIRouter:
    """`/docs`: the OpenAPI document as a page, whose scripts come from where FastAPI has them."""
    router = APIRouter()

    @router.get("/docs", include_in_schema=False)
    async def documents() -> HTMLResponse:
        page = get_swagger_ui_html(openapi_url="/openapi.json", title=title)
        page.headers["content-security-policy"] = _DOCUMENTS_POLICY
        return page

    return router
