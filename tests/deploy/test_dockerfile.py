"""The Dockerfile: what is copied exists, what runs is small, unprivileged and tells its health."""

import re
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.deploy.dockerfile import is_sent
from tests.live.test_tls import signed

SITE_PACKAGES = re.compile(r"/lib/python(\d\.\d+)/site-packages")


def test_a_linter_finds_nothing_in_it(root):
    linter = Path(sys.executable).with_name("hadolint")

    done = subprocess.run([linter, root / "Dockerfile"], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_is_what_a_plain_build_makes(image):
    assert list(image)[-1] == "runtime"
    assert image["runtime"].parent is image["base"]


def test_base_images_are_pinned_to_a_release(image):
    python = r"docker\.io/library/python:3\.\d+(\.\d+)?-slim-[a-z]+"
    cuda = r"docker\.io/nvidia/cuda:\d+\.\d+\.\d+-devel-ubuntu\d+\.\d+"

    for stage in image.values():
        if not stage.parent:
            assert re.fullmatch(f"{python}|{cuda}", stage.image)


def test_builder_and_server_have_the_same_python(image):
    assert image["build"].image == image["base"].image


def test_the_python_of_the_image_is_one_that_the_package_takes(image, root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minimum = project["requires-python"].removeprefix(">=").split(".")

    assert [int(part) for part in python_version(image).split(".")] >= [
        int(part) for part in minimum
    ]


def python_version(image) -> str:
    """The version in the name of the base image."""
    return image["base"].image.rpartition(":")[2].partition("-")[0]


def test_paths_into_the_environment_name_its_python(image):
    texts = [instruction.text for stage in image.values() for instruction in stage.instructions]
    versions = {version for text in texts for version in SITE_PACKAGES.findall(text)}

    assert versions == {python_version(image)}


@pytest.mark.parametrize("stage", ["runtime", "cuda", "dev"])
def test_the_server_is_not_root(image, stage):
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", image[stage].last("USER").text)


def test_nothing_is_fetched_but_packages(image):
    for stage in image.values():
        assert not stage.all("ADD")
        for instruction in stage.all("RUN"):
            assert not re.search(r"\b(curl|wget|git)\b", instruction.text)


def test_every_source_that_is_copied_exists_and_is_sent(image, root):
    dockerignore = (root / ".dockerignore").read_text(encoding="utf-8")

    for stage in image.values():
        for instruction in stage.instructions:
            if instruction.name == "COPY" and "from" not in instruction.flags:
                for source in instruction.words[:-1]:
                    assert (root / source).exists(), source
                    assert is_sent(source, dockerignore), source


@pytest.mark.parametrize(
    "path",
    [".git", ".venv/bin/python", "tests/deploy/test_dockerfile.py", "requirements/build.in",
     "llm_backend/contract/compiled/index.json",
        "llm_backend/contract/compiled.json", "llm_backend/engine/__pycache__/a.pyc", ".env"],
)  # fmt: skip
def test_unneeded_files_are_not_sent_to_the_build(root, path):
    assert not is_sent(path, (root / ".dockerignore").read_text(encoding="utf-8"))


def test_stages_copy_from_stages_that_come_before(image):
    names = list(image)
    for position, stage in enumerate(image.values()):
        for instruction in stage.instructions:
            if source := instruction.flags.get("from"):
                assert source in names[:position]


def test_llama_is_built_by_the_python_that_runs_it(image):
    venv = f"python{python_version(image)} -m venv"

    assert any(venv in one.text for one in image["build-cuda"].all("RUN"))


def test_the_image_for_gpus_has_the_libraries_that_its_kernels_link_to(image):
    copied, engine = [
        one for one in image["cuda"].all("COPY") if one.flags.get("from") == "build-cuda"
    ]

    *libraries, folder = copied.words
    assert {library.rpartition("/")[2].partition(".so")[0] for library in libraries} == {
        "libcudart",
        "libcublas",
        "libcublasLt",
    }
    assert folder == "/usr/local/lib/"
    assert engine.words == ["/engine/", "/"]
    assert any("ldconfig" in one.text for one in image["cuda"].all("RUN"))


def test_packages_of_the_distribution_leave_no_lists_and_no_recommendations(image):
    for stage in image.values():
        for instruction in stage.all("RUN"):
            if "apt-get install" in instruction.text:
                assert "--no-install-recommends" in instruction.text
                assert "rm -rf /var/lib/apt/lists/*" in instruction.text


def test_audio_and_images_are_build_arguments(image):
    (steps,) = [one.text for one in image["build"].all("RUN") if "audio.lock" in one.text]
    (draws,) = [one.text for one in image["build"].all("RUN") if "draw.lock" in one.text]

    assert "${AUDIO:+-r requirements/audio.lock}" in steps
    assert "${DRAW:+/draw-wheels/*.whl}" in steps
    assert 'if [ "${DRAW}" ]; then' in draws
    assert any("${AUDIO:+espeak-ng}" in one.text for one in image["base"].all("RUN"))


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("audio", ("audio", "transcription", "voices", "realtime")), ("draw", ("draw",))],
)
def test_packages_of_media_are_pinned_as_those_beside_them(root, lock, extras):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        re.split("[=><]", package)[0]
        for extra in extras
        for package in project["optional-dependencies"][extra]
    }
    of_all = pinned(root / "requirements/deploy.lock")
    of_media = pinned(root / f"requirements/{lock}.lock")
    shared = of_all.keys() & of_media.keys()

    assert wanted <= of_all.keys() | of_media.keys()
    assert {name: of_all[name] for name in shared} == {name: of_media[name] for name in shared}


def pinned(path: Path) -> dict[str, list[str]]:
    """The lines of a lock file that name a package, by the package."""
    lines: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if "==" in line.partition(" ")[0]:
            lines.setdefault(line.partition("==")[0], []).append(line)
    return lines


def test_change_of_the_package_leaves_the_engine_and_its_environment_cached(image):
    sources = [word for one in image["build"].all("COPY") for word in one.words[:-1]]

    assert not {"llm_backend/", "openapi/"} & {*sources}
    assert [one.flags["from"] for one in image["base"].all("COPY")] == ["build", "package"]


@pytest.mark.parametrize("stage", ["runtime", "cuda"])
def test_the_compiler_stays_behind(image, stage):
    shipped = " ".join(instruction.text for instruction in image[stage].all("RUN"))

    assert "build-essential" not in shipped
    assert "libgomp1" in shipped


def test_every_package_is_pinned_by_hash_or_built_here(image):
    installs = [
        command
        for stage in ("package", "build-cuda")
        for instruction in image[stage].all("RUN")
        for command in instruction.text.split("&&")
        if re.search(r"pip (--python \S+ )?(install|wheel)", command)
    ]

    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-deps" in command
        assert (
            "--no-deps" not in command
            or "--no-index" in command
            or "--no-build-isolation" in command
        )


def test_the_entry_point_is_the_command_of_the_package(image, root):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert image["runtime"].last("ENTRYPOINT").words == [*project["scripts"]]
    assert image["runtime"].last("CMD").words[0] == "serve"


def test_the_development_image_serves_as_the_other_one_does(image):
    command = [*image["base"].last("ENTRYPOINT").words, *image["base"].last("CMD").words]

    assert " ".join(command) in image["dev"].last("ENTRYPOINT").words


def test_the_health_check_calls_an_operation(image, own_operations):
    (path,) = re.findall(r"'GET', '([^']+)'", image["runtime"].last("HEALTHCHECK").text)

    assert "get" in own_operations[path]


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_the_health_check_passes_on_a_healthy_server_only(image, status, is_healthy):
    with answering(status) as port:
        done = health_check(image, port)

    assert (done.returncode == 0) is is_healthy, done.stderr


def test_health_check_fails_without_a_listener(image):
    with answering(200) as port:
        pass

    assert health_check(image, port).returncode


def test_health_check_takes_an_empty_port_for_an_unset_one(image):
    done = health_check(image, "")  # nothing may listen at 8000

    assert "ValueError" not in done.stderr


def test_the_health_check_speaks_tls_where_the_server_does(image, tmp_path):
    paths = signed("llm-backend").write(tmp_path, "server")
    certificate = str(paths[0])
    with answering(200, paths) as port:
        done = health_check(image, port, LLM_BACKEND_TLS_CERTIFICATE=certificate)

    assert done.returncode == 0, done.stderr


def health_check(image, port: int | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command of HEALTHCHECK against a server on this machine, which may be busy: it waits
    a minute for the answer, not four seconds."""
    name, option, code = image["runtime"].last("HEALTHCHECK").inner.words
    assert (name, option) == ("python", "-c")
    assert code.count("timeout=4") == 2
    return subprocess.run(
        [sys.executable, option, code.replace("timeout=4", "timeout=60")],
        env={"LLM_BACKEND_PORT": str(port), **environment},
        capture_output=True, text=True,
    )  # fmt: skip


@contextmanager
def answering(status: int, tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """The port of a server that answers everything with `status`, with a certificate and its key
    if there are any."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
