"""Models are brought from a hub: the right files, whole, from where an interruption left them."""

import fcntl
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_backend.model_import import hub as hub_module
from llm_backend.model_import.hub import HubFile, PullError, choose_files, choose_projector, pull
from tests.models_convert.hub_stand_in import REPOSITORY, Hub, hub_with

EMPTY = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
BIG = EMPTY + random.Random(1).randbytes(200_000)


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "README.md": b"#", "tiny-Q4_K_M.gguf": b"GGUF4", "tiny-Q8_0.gguf": BIG,
        "mmproj-tiny-f16.gguf": b"GGUFp",
        "BF16/tiny-BF16-00001-of-00002.gguf": b"GGUF1", "BF16/tiny-BF16-00002-of-00002.gguf": b"2",
    }  # fmt: skip
    with hub_with(files) as one:
        yield one


def test_a_model_is_brought_and_left_where_it_is_the_second_time(hub, tmp_path):
    begun: list[HubFile] = []
    (path,) = pull(REPOSITORY, "q8_0", tmp_path, endpoint=hub.url, on_file=begun.append)

    assert path == tmp_path / "tiny-Q8_0.gguf"
    assert path.read_bytes() == BIG
    assert [file.path for file in begun] == ["tiny-Q8_0.gguf"]
    asked = len(hub.asked)
    assert pull(REPOSITORY, "q8_0", tmp_path, endpoint=hub.url) == [path]
    assert len(hub.asked) == asked + 1  # what there is


def test_all_parts_of_a_model_are_brought(hub, tmp_path):
    paths = pull(REPOSITORY, "BF16", tmp_path, endpoint=hub.url)

    assert [path.read_bytes() for path in paths] == [b"GGUF1", b"2"]
    assert {path.parent for path in paths} == {tmp_path / "BF16"}


def test_a_download_goes_on_where_it_was_interrupted(hub, tmp_path):
    (tmp_path / "tiny-Q8_0.gguf.part").write_bytes(BIG[:150_000])

    (path,) = pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)

    assert path.read_bytes() == BIG
    assert hub.asked[-1][1] == "bytes=150000-"
    assert list(tmp_path.glob("*.part")) == []


def test_a_partial_file_that_is_too_long_is_begun_anew(hub, tmp_path):
    (tmp_path / "tiny-Q8_0.gguf.part").write_bytes(BIG + b"more")

    (path,) = pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)

    assert path.read_bytes() == BIG
    assert hub.asked[-1][1] in (None, "bytes=0-")


def test_a_download_resumes_on_a_disk_with_room_for_the_rest_only(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60_000))
    with pytest.raises(PullError, match="GB left"):
        pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)
    (tmp_path / "tiny-Q8_0.gguf.part").write_bytes(BIG[:150_000])

    (path,) = pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)

    assert path.read_bytes() == BIG


def test_a_file_over_the_limit_of_one_request_comes_in_pieces(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 90_000)
    monkeypatch.setattr("llm_backend.model_import.hub.PIECE_BYTES", 80_000)
    hub.breaks_after = 50_000
    arrived: list[int] = []

    (path,) = pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url, on_bytes=arrived.append)

    ranges = [requested for _, requested in hub.asked[1:]]
    assert path.read_bytes() == BIG
    assert ranges[0] == "bytes=0-79999"
    assert ranges[-2:] == ["bytes=80000-159999", f"bytes=160000-{len(BIG) - 1}"]
    assert sum(arrived) == len(BIG)


def test_a_connection_that_breaks_is_taken_up_again(hub, tmp_path):
    hub.breaks_after = 100_000

    (path,) = pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)

    assert path.read_bytes() == BIG
    assert len(hub.asked) == 3


def test_a_download_with_another_checksum_is_not_kept(hub, tmp_path):
    hub.checksums["tiny-Q8_0.gguf"] = "0" * 64

    with pytest.raises(PullError, match="another checksum"):
        pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)
    assert list(tmp_path.iterdir()) == []


def test_a_download_is_locked_until_its_checksum_is_known(hub, tmp_path, monkeypatch):
    checksum, refusals = hub_module._checksum, []

    def pull_meanwhile(path: Path) -> str:
        monkeypatch.setattr(hub_module, "_checksum", checksum)
        with pytest.raises(PullError) as refused:
            pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)
        refusals.append(str(refused.value))
        return checksum(path)

    monkeypatch.setattr(hub_module, "_checksum", pull_meanwhile)
    (path,) = pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)

    assert path.read_bytes() == BIG
    assert refusals == ["tiny-Q8_0.gguf is being downloaded already; wait for its end."]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("owner/none", "There is no model `owner/none`"), ("a/b/c", "is not a valid model name")],
)
def test_a_name_that_is_not_in_the_hub_is_one_sentence(hub, tmp_path, name, sentence):
    with pytest.raises(PullError, match=sentence) as caught:
        pull(name, None, tmp_path, endpoint=hub.url)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("taken", ["models", "models/tiny-Q8_0.gguf.part"])
def test_a_folder_that_takes_no_file_is_one_sentence(hub, tmp_path, taken):
    if taken == "models":
        (tmp_path / taken).touch()
    else:
        (tmp_path / taken).mkdir(parents=True)

    with pytest.raises(PullError, match=f"cannot be written to .*{taken}: "):
        pull(REPOSITORY, "Q8_0", tmp_path / "models", endpoint=hub.url)


def test_a_path_that_leads_elsewhere_is_refused(hub, tmp_path):
    hub.files = {"../evil.gguf": b"GGUF"}

    with pytest.raises(PullError, match="would lie elsewhere"):
        pull(REPOSITORY, None, tmp_path / "in", endpoint=hub.url)
    assert not (tmp_path / "evil.gguf").exists()


@pytest.mark.parametrize(
    ("quant", "found"),
    [("q8_0", ["m-Q8_0.gguf"]), (None, ["m-Q4_K_M.gguf"]), ("Q4_K", ["m-Q4_K.gguf"])],
)
def test_the_model_that_is_meant(quant, found):
    names = ("m-Q4_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m.gguf")
    files = [HubFile(path=name, size_bytes=1, sha256=None) for name in names]

    assert [file.path for file in choose_files("o/m", quant, files)] == found
    with pytest.raises(PullError, match=r"m-Q4_K.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf"):
        choose_files("o/m", "Q5", files)
    with pytest.raises(PullError, match="has no GGUF files"):
        choose_files("o/m", None, files[-1:])


def test_a_projector_comes_with_its_model(hub, tmp_path):
    model, projector = pull(REPOSITORY, "Q4_K_M", tmp_path, with_projector=True, endpoint=hub.url)

    assert model.name == "tiny-Q4_K_M.gguf"
    assert projector.read_bytes() == b"GGUFp"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["m.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"], "mmproj-F16.gguf"),
        (["mmproj-model-f16.gguf", "mmproj-model-q8_0.gguf"], "mmproj-model-f16.gguf"),
        (["m.gguf", "m-mmproj-q8_0.gguf"], "m-mmproj-q8_0.gguf"),
        (["m.gguf"], None),
        (["mmproj-BF16.gguf", "mmproj-F32.gguf"], None),
    ],
)
def test_the_projector_that_is_meant(names, found):
    files = [HubFile(path=name, size_bytes=1, sha256=None) for name in names]

    if found is None:
        with pytest.raises(PullError, match=r"projector"):
            choose_projector("o/m", files)
    else:
        assert choose_projector("o/m", files).path == found


def test_the_command_uses_the_hub_that_the_environment_names(hub, tmp_path):
    def run(*words: str, endpoint: str = hub.url) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"),
                       "LLM_BACKEND_MODELS_DIR": str(tmp_path / "models")}  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "llm_backend", "models", *words],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip

    done = run("pull", f"{REPOSITORY}:Q8_0")
    broken = run("pull", f"{REPOSITORY}:Q4_K_M")
    (tmp_path / "models" / REPOSITORY / "tiny-Q4_K_M.gguf").unlink()
    offline = run("pull", f"{REPOSITORY}:Q4_K_M", endpoint="http://127.0.0.1:9")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / REPOSITORY / "tiny-Q8_0.gguf").read_bytes() == BIG
    assert f"llm-backend serve --model {REPOSITORY}:Q8_0" in done.stdout
    assert offline.returncode == 1
    assert broken.returncode == 1
    assert "is cut short: its header would end" in broken.stderr
    assert offline.stderr.splitlines()[-1].startswith(
        "llm-backend: The hub at http://127.0.0.1:9 cannot be reached"
    )


def _take_terminal() -> None:
    """Have Ctrl+C end the process, also where the tests themselves ignore it (in background)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A command at a terminal of a hundred columns."""

    def __init__(self, *command: str, environment: dict[str, str]) -> None:
        self._screen, inside = pty.openpty()
        self.shown = ""
        with os.fdopen(inside, "rb+", buffering=0) as end:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "llm_backend", *command],
                stdin=end, stdout=end, stderr=end, start_new_session=True,
                env={**os.environ, "COLUMNS": "100", "TERM": "xterm", **environment},
                preexec_fn=_take_terminal,
            )  # fmt: skip

    def shows(self, pattern: str) -> None:
        """Returns once this is on the screen."""
        deadline = time.monotonic() + 30
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, self.shown
            self._read()

    def press(self, key: bytes) -> None:
        os.write(self._screen, key)

    def end(self) -> int:
        """Its exit status, once all is shown."""
        while self._read():
            pass
        os.close(self._screen)
        return self.process.wait(30)

    def _read(self) -> bool:
        try:
            read = os.read(self._screen, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", read.decode(errors="replace"))
        return bool(read)


def test_a_person_sees_how_far_it_is_and_goes_on_after_ctrl_c(tmp_path):
    big = EMPTY + bytes(64 << 20)  # the hub's library shows ten megabytes at a time
    environment = {"HF_HOME": str(tmp_path / "home"), "LLM_BACKEND_MODELS_DIR": str(tmp_path)}
    with hub_with({"tiny-Q8_0.gguf": big}) as hub:
        environment["HF_ENDPOINT"] = hub.url
        hub.stops_after = 40 << 20
        first = Terminal("models", "pull", REPOSITORY, environment=environment)
        first.shows(r"tiny-Q8_0\.gguf .* 62% 41\.9/67\.1 MB")
        first.press(b"\x03")
        interrupted = first.end()
        second = Terminal("models", "pull", REPOSITORY, environment=environment)
        done = second.end()  # so quick that it may show no progress
        start = int(hub.asked[-1][1].removeprefix("bytes=").removesuffix("-"))

    assert interrupted == 1
    assert "resumes the download" in first.shown
    assert done == 0
    assert start == 40 << 20
    assert (tmp_path / REPOSITORY / "tiny-Q8_0.gguf").read_bytes() == big
    assert "llm-backend serve --model owner/tiny-GGUF" in second.shown.partition("Serve it: ")[2]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("base", "ggml-base.bin"),
        ("base.en", "ggml-base.en.bin"),
        ("ggml-base.bin", "ggml-base.bin"),
        ("base-q5_1", "ggml-base-q5_1.bin"),
    ],
)
def test_a_whisper_model_is_chosen_by_its_name(name, found):
    names = ("ggml-base-q5_1.bin", "ggml-base.bin", "ggml-base.en.bin", "ggml-base.en-q5_1.bin")
    files = [HubFile(path=one, size_bytes=1, sha256=None) for one in names]

    assert [one.path for one in choose_files("o/whisper.cpp", name, files)] == [found]
    with pytest.raises(PullError, match="choose one by"):
        choose_files("o/whisper.cpp", None, files)
