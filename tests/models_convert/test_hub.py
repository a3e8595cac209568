"""Models are brought from a hub: the right files, whole, from where an interruption left them."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llm_backend.models.hub import HubFile, PullError, chosen_files, pull
from tests.models_convert.hub_stand_in import REPOSITORY, Hub, hub_with

BIG = b"GGUF" + random.Random(1).randbytes(200_000)


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
    (path,) = pull(REPOSITORY, "q8_0", tmp_path, endpoint=hub.url, begins=begun.append)

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


def test_a_connection_that_breaks_is_taken_up_again(hub, tmp_path):
    hub.breaks_after = 100_000

    (path,) = pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)

    assert path.read_bytes() == BIG
    assert len(hub.asked) == 3


def test_what_came_otherwise_than_the_hub_tells_is_not_kept(hub, tmp_path):
    hub.checksums["tiny-Q8_0.gguf"] = "0" * 64

    with pytest.raises(PullError, match="another checksum"):
        pull(REPOSITORY, "Q8_0", tmp_path, endpoint=hub.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("owner/none", "There is no model `owner/none`"), ("a/b/c", "is no name of a model")],
)
def test_a_name_that_the_hub_does_not_know_is_one_sentence(hub, tmp_path, name, sentence):
    with pytest.raises(PullError, match=sentence) as caught:
        pull(name, None, tmp_path, endpoint=hub.url)

    assert "\n" not in str(caught.value)


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

    assert [file.path for file in chosen_files("o/m", quant, files)] == found
    with pytest.raises(PullError, match=r"m-Q4_K.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf"):
        chosen_files("o/m", "Q5", files)
    with pytest.raises(PullError, match="has no GGUF files"):
        chosen_files("o/m", None, files[-1:])


def test_the_command_asks_the_hub_that_the_environment_names(hub, tmp_path):
    def run(*words: str, endpoint: str = hub.url) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"),
                       "LLM_BACKEND_MODELS_DIR": str(tmp_path / "models")}  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "llm_backend", "models", *words],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip

    done = run("pull", f"{REPOSITORY}:Q8_0")
    offline = run("pull", f"{REPOSITORY}:Q4_K_M", endpoint="http://127.0.0.1:9")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / REPOSITORY / "tiny-Q8_0.gguf").read_bytes() == BIG
    assert f"llm-backend serve --model {REPOSITORY}:Q8_0" in done.stdout
    assert offline.returncode == 1
    assert offline.stderr.splitlines()[-1].startswith(
        "llm-backend: The hub at http://127.0.0.1:9 cannot be reached"
    )
