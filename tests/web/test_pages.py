"""The pages' files: what is served, under which headers; what others made is as they made it."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import swagger_ui_bundle
from starlette.responses import PlainTextResponse

from llm_backend.web import WebPages
from llm_backend.web import pages as page_files
from llm_backend.web.pages import STATIC

VENDORED = json.loads((STATIC / "vendor/vendored.json").read_text())
SWAGGER_UI_SHA256 = {  # of swagger-ui-dist 5.31.0, which the package says it carries
    "swagger-ui-bundle.js": "93b7b0862a80e2786f85b560be7693c2344354ffa7e7e224f850a54349724c31",
    "swagger-ui.css": "9e576f8322132c76949da47f9bb53c891373c303ea3a761ff548ffc9de50a98c",
}

FOR_OPERATORS = {"docs.js"}  # in English, as the document is
NO_WORDS_OF_A_LANGUAGE = {
    # names of the browser's and of HTTP
    *("Enter", "Tab", "Escape", "Files", "Bearer ${apiKey.value}"),
    *("Secret Key", "Files of a chat"),  # names on the server
    *("How do I load a real model?", "How do I use you from Python?", "What is 12 plus 30?"),
    *("The user refused this call.", "Error: "),  # to models
    "Go on exactly where you stopped. Repeat nothing.",
    "Write a title of at most six words for the following chat, in its language."
    " Write nothing else.",
}
STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\\n]|\\.)*)`')


@pytest.fixture
def pages() -> httpx.AsyncClient:
    app = WebPages(PlainTextResponse("the application's"))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/web/app.js", "text/javascript; charset=utf-8"),
        ("/web/vendor/purify.es.mjs", "text/javascript; charset=utf-8"),
        ("/web/vendor/geist.woff2", "font/woff2"),
        ("/web/style.css", "text/css; charset=utf-8"),
        ("/web/manifest.webmanifest", "application/manifest+json"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
    ],
)
async def test_web_page_file_has_media_type_and_etag(pages, path, media_type):
    answer = await pages.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert re.fullmatch(r'"[0-9a-f]{32}(-gzip)?"', answer.headers["etag"])
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_web_page_texts_are_compressed_for_clients_that_accept_it(pages):
    plain = await pages.get("/web/app.js", headers={"accept-encoding": "br"})
    zipped = await pages.get("/web/app.js", headers={"accept-encoding": "gzip, br"})
    font = await pages.get("/web/vendor/geist.woff2", headers={"accept-encoding": "gzip"})

    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.content == plain.content == (STATIC / "app.js").read_bytes()
    assert int(zipped.headers["content-length"]) < len(plain.content) / 2
    assert zipped.headers["etag"] != plain.headers["etag"]
    assert zipped.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert "content-encoding" not in {**plain.headers, **font.headers}


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip;q=1", True),
        ("br, GZIP; q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("", False),
        ("not-gzip", False),
        ("gzip;q=x", False),
    ],
)
async def test_web_page_compression_follows_the_weight_of_gzip(pages, accepted, is_compressed):
    answer = await pages.get("/web/app.js", headers={"accept-encoding": accepted})

    assert (answer.headers.get("content-encoding") == "gzip") is is_compressed
    assert answer.content == (STATIC / "app.js").read_bytes()


async def test_web_page_files_of_a_release_are_cached_for_good(pages):
    page = (await pages.get("/")).text
    script = re.search(r'src="(web/@[0-9a-f]{16}/)app.js"', page)
    assert script is not None
    of_release = await pages.get(f"/{script[1]}style.css")
    of_another = await pages.get("/web/@0123456789abcdef/style.css")

    assert of_release.content == of_another.content == (STATIC / "style.css").read_bytes()
    assert "immutable" in of_release.headers["cache-control"]
    assert of_another.headers["cache-control"] == "no-cache"
    assert (await pages.get("/")).headers["cache-control"] == "no-cache"
    assert script[1] in (await pages.get("/docs")).text
    linked = re.findall(r'(?:src|href)="(web/[^"]+)"', page)
    assert len(linked) > 5
    for path in linked:
        assert (await pages.get(f"/{path}")).status_code == 200, path
        assert "@" in path or path.endswith(("icon.svg", "manifest.webmanifest")), path


async def test_web_page_scripts_of_a_release_are_bundles_elsewhere_the_files(pages):
    page = (await pages.get("/")).text
    script = re.search(r'src="(web/@[0-9a-f]{16}/app.js)"', page)
    assert script is not None
    bundle = await pages.get(f"/{script[1]}")
    of_another = await pages.get("/web/@0123456789abcdef/app.js")
    plain = await pages.get("/web/app.js")

    assert "immutable" in bundle.headers["cache-control"]
    assert bundle.content == of_another.content != plain.content
    assert bundle.text.count("translatePage") > plain.text.count("translatePage") > 0
    assert of_another.headers["cache-control"] == plain.headers["cache-control"] == "no-cache"
    assert plain.content == (STATIC / "app.js").read_bytes()


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Iterator[Path]:
    """Another folder of the page's files, of which none has been read."""
    monkeypatch.setattr(page_files, "STATIC", tmp_path)
    (tmp_path / "index.html").write_text('<script src="web/app.js"></script>')
    for name in ("app.js", "style.css", "same.css"):
        (tmp_path / name).write_text("old")
    forget_files()
    yield tmp_path
    forget_files()


def forget_files() -> None:
    for one in vars(page_files).values():
        if hasattr(one, "cache_clear"):
            one.cache_clear()


async def release_of(pages: httpx.AsyncClient) -> str:
    """The folder that the page names."""
    found = re.search(r'src="(web/@[0-9a-f]{16}/)app.js"', (await pages.get("/")).text)
    assert found is not None
    return f"/{found[1]}"


async def test_web_page_files_replaced_before_their_first_request_do_not_last(folder, pages):
    release = await release_of(pages)
    (folder / "style.css").write_text("new")
    new, same = await pages.get(f"{release}style.css"), await pages.get(f"{release}same.css")

    assert (new.text, new.headers["cache-control"]) == ("new", "no-cache")
    assert (same.text, "immutable" in same.headers["cache-control"]) == ("old", True)


async def test_web_page_modules_are_read_with_the_page(folder, pages):
    release = await release_of(pages)
    (folder / "app.js").write_text("new")
    script = await pages.get(f"{release}app.js")

    assert (script.text, "immutable" in script.headers["cache-control"]) == ("old", True)


async def test_web_page_release_is_another_if_files_have_other_names(folder, pages):
    (folder / "a.js").write_text("a")
    before = await release_of(pages)
    (folder / "a.js").rename(folder / "aa.js")
    forget_files()

    assert await release_of(pages) != before


@pytest.mark.parametrize(
    ("listed", "status"),
    [
        ("{}", 304),
        ("W/{}", 304),
        ('W/"other", {}', 304),
        ('"a,b",W/{}', 304),
        ("*", 304),
        (" * ", 304),
        ('"other"', 200),
        ('"*"', 200),
    ],
)
async def test_web_page_file_with_a_listed_etag_is_a_304(pages, listed, status):
    tag = (await pages.get("/web/app.js")).headers["etag"]

    answer = await pages.get("/web/app.js", headers={"if-none-match": listed.format(tag)})

    assert answer.status_code == status
    assert bool(answer.content) is (status == 200)
    assert answer.headers["etag"] == tag


@pytest.mark.parametrize(
    "path",
    ["/web/", "/web", "/web/nothing.js", "/web/../pages.py", "/web/%2e%2e/pages.py",
     "/web//etc/passwd", "/docs/index.html", "/docs/../__init__.py", "/v1/models", "/chat"],
)  # fmt: skip
async def test_web_pages_pass_other_paths_to_the_application(pages, path):
    answer = await pages.get(path)

    assert answer.text == "the application's"


async def test_web_pages_answer_only_get_and_head(pages):
    assert (await pages.post("/")).text == "the application's"
    assert (await pages.head("/")).headers["content-type"] == "text/html; charset=utf-8"


async def test_web_page_policy_allows_only_own_files_and_no_inline_scripts(pages):
    answer = await pages.get("/")

    policy = dict(
        part.strip().partition(" ")[::2]
        for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    kinds = ("script", "style", "font", "connect", "manifest")
    assert {policy[f"{kind}-src"] for kind in kinds} == {"'self'"}
    assert policy["frame-src"] == "'self'"  # the frame of diagrams
    assert policy["img-src"] == "'self' blob:"  # what the page itself has made
    assert policy["require-trusted-types-for"] == "'script'"
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", answer.text)


async def test_frame_of_diagrams_runs_one_script_without_an_origin(pages):
    answer = await pages.get("/web/diagrams.html")

    policy = answer.headers["content-security-policy"]
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert len(scripts) == 1
    assert policy == (
        "sandbox allow-scripts; default-src 'none'; "
        f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    )


async def test_web_pages_of_another_folder_are_served_instead_of_the_chat_page(tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<h1>Another</h1>")
    (folder / "assets/a.js").write_text("1")
    (folder / ".env").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    app = WebPages(PlainTextResponse("the application's"), folder)
    there = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")

    assert (await there.get("/")).text == "<h1>Another</h1>"
    assert (await there.get("/assets/a.js")).headers["content-type"].startswith("text/javascript")
    assert "swagger" in (await there.get("/docs")).text
    for path in ("/.env", "/link", "/../secret", "/%2e%2e/secret", "/assets", "/v1/models"):
        assert (await there.get(path)).text == "the application's", path


def test_web_page_files_name_no_other_server():
    for file in STATIC.iterdir():
        if file.is_file() and file.name != "icon.svg":
            addresses = re.findall(r"https?://[^\s\"')]+", file.read_text())
            assert set(addresses) <= {"http://www.w3.org/2000/svg"}, file.name


def test_web_page_vendor_files_match_their_hashes():
    folder = STATIC / "vendor"
    files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    there = {file.as_posix() for file in files if file.parts[0] != "licences"}

    assert there - {"vendored.json"} == set(VENDORED)
    for name, facts in VENDORED.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"], name
        assert (folder / facts["licence_file"]).read_text(), name
        assert {"package", "version", "path", "licence", "purpose"} <= set(facts)


def test_swagger_ui_matches_its_release():
    for name, digest in SWAGGER_UI_SHA256.items():
        content = (swagger_ui_bundle.swagger_ui_path / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name


def test_web_page_imports_are_exported():
    exported = {
        file.name: set(re.findall(r"export .*?(?:function\*?|class|const) (\w+)", file.read_text()))
        for file in STATIC.glob("*.js")
    }
    imports = [
        (file.name, module, name.split()[0])
        for file in STATIC.glob("*.js")
        for names, module in re.findall(r'import {([^}]*)} from "\./(\w+\.js)"', file.read_text())
        for name in names.split(",")
        if name.strip()
    ]

    assert len(imports) > 100
    assert [one for one in imports if one[2] not in exported[one[1]]] == []
    for file in STATIC.glob("*.js"):
        for name in re.findall(r'(?:from|import\() ?"\./([^"]+)"', file.read_text()):
            assert (STATIC / name).is_file(), f"{file.name} imports {name}"


def test_web_page_languages_have_the_same_texts_which_the_page_uses():
    languages = {file.stem: json.loads(file.read_text()) for file in STATIC.glob("languages/*")}
    sources = "".join(file.read_text() for file in STATIC.iterdir() if file.is_file())
    used = set(re.findall(r"""\bt\(\s*"([^"]+)\"""", sources))

    for texts in languages.values():
        assert used <= texts.keys() == languages["de"].keys()
        for text, translated in texts.items():
            assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", translated))
            assert text in sources, text


def test_web_page_texts_are_translated():
    found = set()
    for file in STATIC.glob("*.js"):
        if file.name not in FOR_OPERATORS | {"code.js", "start.js"}:
            found |= {(file.name, text) for text in untranslated(file.read_text())}

    assert {text for _, text in found} == NO_WORDS_OF_A_LANGUAGE, found


def untranslated(source: str) -> Iterator[str]:
    """Strings that read as words for people, but are not looked up in the dictionaries."""
    source = re.sub(r"/\*(?:.|\n)*?\*/|(?:^|(?<=\s))//.*", "", source)
    for one in STRING.finditer(source):
        plain, template = one.groups()
        if plain is not None:
            is_text = re.match(r"[A-Z][a-z]+($|[ .,:])", plain)
        else:
            is_text = re.search(r"^[A-Z][a-z]+ |^[^<]*\b[a-z]{2,} [a-z]{2,}", template)
        if is_text and not re.search(r"\bt\(\s*$", source[: one.start()][-40:]):
            yield one[0][1:-1]


async def test_a_large_file_is_compressed_while_other_requests_go_on(pages):
    page_files._read_swagger_ui.cache_clear()
    turns = 0
    getting = asyncio.create_task(pages.get("/docs/swagger-ui-bundle.js"))
    while not getting.done():
        turns += 1
        await asyncio.sleep(0)

    assert (await getting).headers["content-encoding"] == "gzip"
    assert turns > 200  # a few if nothing else goes on meanwhile
