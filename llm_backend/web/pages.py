"""Answers the browser's requests for pages and their files; everything else is the application's.

Nothing is read at start. A file is read when it is first asked for and kept with the digest that is
its entity tag; browsers keep it too and ask each time whether it is still the same (304).
"""

import functools
import hashlib
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PAGES", "WebPages"]

STATIC = Path(__file__).with_name("static")
FILES = "/web/"
DOCS_FILES = "/docs/"
PAGES = {"/": "index.html", "/docs": "docs.html"}  # by path; others may link to them
SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")  # all of its package that is used

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "woff2": "font/woff2",
}

# A page of this server loads from this server alone (blobs are pictures that it has made itself),
# runs no script that is not a file of it, and lets no string become HTML without the sanitiser.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
# Swagger UI sets styles in its markup, has pictures in its style sheet, and writes HTML of its own.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, kw_only=True)
class _PageFile:
    content: bytes
    tag: str
    media_type: str


class WebPages:
    """The pages in front of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers GET and HEAD for the pages' files."""
        is_asked_for = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        file = _file(scope["path"]) if is_asked_for else None
        if file is None:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["operation_id"] = "web"  # for the access log
        await _response(file, scope)(scope, receive, send)


def _file(path: str) -> _PageFile | None:
    """The file at a path; None where the path is not the pages'. Names are looked up in what there
    is, never joined to a path."""
    if path in PAGES:
        return _read(PAGES[path])
    if path.startswith(DOCS_FILES) and (name := path.removeprefix(DOCS_FILES)) in SWAGGER_UI:
        return _read_swagger_ui(name)
    if path.startswith(FILES) and (name := path.removeprefix(FILES)) in _names():
        return _read(name)
    return None


def _response(file: _PageFile, scope: Scope) -> Response:
    headers = {
        "etag": file.tag,
        "cache-control": "no-cache",  # keep it, and ask whether it is still the same
        "date": formatdate(usegmt=True),
        "content-security-policy": _DOCS_POLICY if scope["path"] == "/docs" else _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }
    if file.tag in Headers(scope=scope).get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@functools.cache
def _names() -> frozenset[str]:
    """Every file of `static/`, by its path in it."""
    found: set[str] = set()
    folders = [("", STATIC)]
    for prefix, folder in folders:
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.rpartition(".")[2] in MEDIA_TYPES:
                found.add(prefix + entry.name)
    return frozenset(found)


@functools.cache
def _read(name: str) -> _PageFile:
    return _load(STATIC / name)


@functools.cache
def _read_swagger_ui(name: str) -> _PageFile:
    import swagger_ui_bundle  # here: most servers are never asked for it

    return _load(Path(swagger_ui_bundle.swagger_ui_path) / name)


def _load(file: Path) -> _PageFile:
    content = file.read_bytes()
    return _PageFile(
        content=content,
        tag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        media_type=MEDIA_TYPES[file.name.rpartition(".")[2]],
    )
