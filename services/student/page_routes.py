"""The page at `/`: its files from memory, under a policy that lets nothing in but them."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from services.platform.errors import NotFound

PAGE = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # The page has no inline script or style, calls this service alone and makes no markup of texts.
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # Kept, but asked about each time: another version of the service brings another page.
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page and the tag that changes with its content."""

    content: bytes
    media_type: str
    tag: str


def page_files() -> dict[str, PageFile]:
    """The files in `page/`, which are shipped with the package, by name."""
    found = {}
    for entry in files("services.student").joinpath("page").iterdir():
        media_type = MEDIA_TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is None:
            continue
        content = entry.read_bytes()
        tag = f'"{sha256(content).hexdigest()[:32]}"'
        found[entry.name] = PageFile(content, media_type, tag)
    return found


def page_router() -> APIRouter:
    """`GET /` and the files that it names; read once, when the application is made."""
    router = APIRouter(include_in_schema=False)
    known = page_files()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(request, known, PAGE)

    @router.api_route("/page/{name}", methods=["GET", "HEAD"])
    async def file(request: Request, name: str) -> Response:
        return _answer(request, known, name)

    return router


def _answer(request: Request, known: Mapping[str, PageFile], name: str) -> Response:
    file = known.get(name)
    if file is None:
        raise NotFound("The page has no such file.", hint="It begins at /.")
    headers = HEADERS | {"etag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
