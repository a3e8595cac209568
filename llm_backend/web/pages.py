"""ASGI middleware that serves the web pages and their static files; passes other requests on.

Nothing is read at startup. A file is read and compressed at its first request, and kept with its
digest, which is its `ETag`. Browsers cache the file and revalidate it on every use (304).

The pages name their files at `/web/@RELEASE/...`, where modules and styles find other files beside
them. The page's scripts there are bundles of modules (`bundles.py`). At `/web/...` each file is as
it is in `static/`. `RELEASE` is a digest of all files and their names, made at the first page: a
file at such an address need not be revalidated. Modules are read only then. Any other file that is
replaced later is still served, but must be revalidated.
"""

import asyncio
import base64
import functools
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.web.bundles import bundle_modules

STATIC = Path(__file__).with_name("static")
FILES = "/web/"
DOCS_FILES = "/docs/"
WORKER = "/web/worker.js"
DIAGRAMS = "/web/diagrams.html"  # the frame in which the page draws diagrams
PAGES = {"/": "index.html", "/docs": "docs.html"}  # pages by path
BUNDLES = ("start.js", "app.js")  # scripts of the page, with the modules that they import
SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")  # the files used of its package

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json",
    "woff2": "font/woff2",
}

_COMPRESSED = frozenset({"html", "css", "js", "mjs", "json", "svg", "txt", "webmanifest"})
_COMPRESSION_LEVEL = 6  # the largest file takes 40 ms, once
_LASTING = "max-age=31536000, immutable"
_LINK = re.compile(rb'="web/(?=[^"]+\.(?:css|js|mjs|woff2)")')  # in a page
_CODING = re.compile(r"([\w*-]+)[ \t]*(?:;[ \t]*[qQ]=([01](?:\.\d{0,3})?))?")
_TAG = re.compile(r'"[^"]*"')
_RELEASE_FOLDER = re.compile(r"^@[0-9a-f]{16}/")

# A page loads resources only from this server (blobs are images and audio of the page), runs
# only script files of this server, and turns no string into HTML without the sanitiser. The
# trusted-types policy `worker` creates one constant URL, the service worker's.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; frame-src 'self'; "
    "base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify worker"
)
# Mermaid makes HTML of strings and inline styles. So it has a frame without an origin and without
# connections, in which only one script runs. The script is inline, because a frame without an
# origin counts as another site, whose requests the server refuses.
_DIAGRAMS_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'sha256-{digest}'; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_DIAGRAMS_SCRIPTS = ("vendor/mermaid.min.js", "diagrams_frame.js")
_DIAGRAMS_PAGE = '<!doctype html><html lang="en"><title>Diagrams</title><body><script>{}</script>'
# Swagger UI needs inline styles and data URLs in CSS, and writes HTML without trusted types.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# Headers of the operator's own files, which may need what the policies above refuse.
_CUSTOM_FILE_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-cache"}


@dataclass(frozen=True, kw_only=True)
class _PageFile:
    content: bytes
    digest: str
    media_type: str
    is_text: bool
    policy: str = _POLICY

    @property
    def is_compressed(self) -> bool:
        """True once the compressed content is cached."""
        return "compressed" in self.__dict__

    @functools.cached_property
    def compressed(self) -> bytes:
        """The content, compressed by gzip."""
        return gzip.compress(self.content, _COMPRESSION_LEVEL, mtime=0)


class WebPages:
    """Serves the pages in front of the wrapped application; with a folder, its files instead of
    the chat page."""

    def __init__(self, app: ASGIApp, folder: Path | None = None) -> None:
        self._app = app
        self._files = {} if folder is None else _files_of(folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers GET and HEAD for the pages' files; passes other requests on."""
        is_read = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        if is_read and (custom := self._files.get(scope["path"])) is not None:
            scope.setdefault("state", {})["operation_id"] = "web"
            await FileResponse(custom, headers=_CUSTOM_FILE_HEADERS)(scope, receive, send)
            return
        file = _file(scope["path"]) if is_read else None
        if file is None:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["operation_id"] = "web"  # for the access log
        if file.is_text and not file.is_compressed:  # other requests go on meanwhile
            await asyncio.to_thread(lambda: file.compressed)
        await _response(file, scope)(scope, receive, send)


def _files_of(folder: Path) -> Mapping[str, Path]:
    """Returns the files below a folder by their paths, except hidden ones and links out of the
    folder. Files that are added later are not served."""
    root = folder.resolve()
    files = {
        f"/{file.relative_to(root).as_posix()}": file
        for file in root.rglob("*")
        if file.is_file() and file.resolve().is_relative_to(root)
    }
    shown = {path: file for path, file in files.items() if "/." not in path}
    return shown | ({"/": shown["/index.html"]} if "/index.html" in shown else {})


def _file(path: str) -> _PageFile | None:
    """Returns the file at a path, or None. Names are looked up in the list of existing files, never
    joined to a path."""
    if path in PAGES:
        return _read_page(PAGES[path])
    if path == DIAGRAMS:
        return _read_diagrams()
    if path.startswith(DOCS_FILES) and (name := path.removeprefix(DOCS_FILES)) in SWAGGER_UI:
        return _read_swagger_ui(name)
    if path.startswith(FILES):
        name, releases = _RELEASE_FOLDER.subn("", path.removeprefix(FILES), count=1)
        read = _read_released if releases else _read
        return read(name) if name in _names() else None
    return None


def _response(file: _PageFile, scope: Scope) -> Response:
    requested = Headers(scope=scope)
    is_compressed = file.is_text and _accepts_gzip(requested)
    tag = f'"{file.digest}-gzip"' if is_compressed else f'"{file.digest}"'
    headers = {
        "etag": tag,
        # otherwise cache, but revalidate on every use
        "cache-control": _LASTING if _is_of_release(scope["path"], file) else "no-cache",
        "date": formatdate(usegmt=True),
        "content-security-policy": file.policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
    }
    if scope["path"] == WORKER:
        headers["service-worker-allowed"] = "/"  # its scope includes the page at `/`
    if file.is_text:
        headers["vary"] = "accept-encoding"
    if _matches(requested, tag):
        return Response(status_code=304, headers=headers)
    if is_compressed:
        headers["content-encoding"] = "gzip"
    content = file.compressed if is_compressed else file.content
    return Response(content, media_type=file.media_type, headers=headers)


def _accepts_gzip(headers: Headers) -> bool:
    """True if the client accepts gzip, by its name or by `*`, with a weight above 0."""
    accepted = {
        match[1].lower(): float(match[2] or 1)
        for one in ",".join(headers.getlist("accept-encoding")).split(",")
        if (match := _CODING.fullmatch(one.strip()))
    }
    return accepted.get("gzip", accepted.get("*", 0)) > 0


def _matches(headers: Headers, tag: str) -> bool:
    """True if `If-None-Match` has this tag, in weak comparison, or `*`."""
    listed = ",".join(headers.getlist("if-none-match"))
    return listed.strip() == "*" or tag in _TAG.findall(listed)


def _is_of_release(path: str, file: _PageFile) -> bool:
    """True for a file of this release at its address. At addresses of other releases the same files
    are served, but must be revalidated."""
    folder = f"{FILES}{_release_folder()}"
    return path.startswith(folder) and file.digest == _digests()[path.removeprefix(folder)]


@functools.cache
def _release_folder() -> str:
    release = "".join(f"{name} {digest}\n" for name, digest in _digests().items())
    return f"@{hashlib.sha256(release.encode()).hexdigest()[:16]}/"


@functools.cache
def _digests() -> Mapping[str, str]:
    """Returns the digests of all files of the release by their names, in the order of the names."""
    modules = _modules()
    return {
        name: _digest(modules[name] if name in modules else (STATIC / name).read_bytes())
        for name in sorted(_names())
    }


@functools.cache
def _modules() -> Mapping[str, bytes]:
    """Returns the modules of the release by their names, without those of libraries."""
    names = [name for name in _names() if name.endswith(".js") and "/" not in name]
    sources = {name: (STATIC / name).read_bytes().decode() for name in names}
    served = bundle_modules(sources, [script for script in BUNDLES if script in sources])
    return {name: text.encode() for name, text in served.items()}


@functools.cache
def _names() -> frozenset[str]:
    """Returns the relative paths of all files of `static/`."""
    names: set[str] = set()
    folders = [("", STATIC)]
    for prefix, folder in folders:
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.rpartition(".")[2] in MEDIA_TYPES:
                names.add(prefix + entry.name)
    return frozenset(names)


@functools.cache
def _read_page(name: str) -> _PageFile:
    replacement = b'="web/' + _release_folder().encode()
    content = _LINK.sub(replacement, (STATIC / name).read_bytes())
    return _to_page_file(content, name, _DOCS_POLICY if name == "docs.html" else _POLICY)


@functools.cache
def _read_diagrams() -> _PageFile:
    script = "\n".join((STATIC / name).read_text("utf-8") for name in _DIAGRAMS_SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _DIAGRAMS_PAGE.format(script).encode()
    return _to_page_file(page, DIAGRAMS, _DIAGRAMS_POLICY.format(digest=digest))


@functools.cache
def _read(name: str) -> _PageFile:
    return _to_page_file((STATIC / name).read_bytes(), name)


@functools.cache
def _read_released(name: str) -> _PageFile:
    modules = _modules()
    return _to_page_file(modules[name], name) if name in modules else _read(name)


@functools.cache
def _read_swagger_ui(name: str) -> _PageFile:
    import swagger_ui_bundle  # lazy: rarely requested

    return _to_page_file((Path(swagger_ui_bundle.swagger_ui_path) / name).read_bytes(), name)


def _to_page_file(content: bytes, name: str, policy: str = _POLICY) -> _PageFile:
    suffix = name.rpartition(".")[2]
    return _PageFile(
        content=content,
        digest=_digest(content),
        media_type=MEDIA_TYPES[suffix],
        is_text=suffix in _COMPRESSED,
        policy=policy,
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
