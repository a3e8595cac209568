"""`llm-backend models`: what is in the folder, what it says, and what is removed."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llm_backend.app.model_planning import ModelPlanner
from llm_backend.app.served_models import build_served_models
from llm_backend.cli import app
from llm_backend.settings import Settings, load_settings
from llm_backend.store import Database, migrate
from llm_backend.store.administration import StoredUsage, UsageKey
from llm_backend.store.administration.usage import AMOUNTS
from tests.engine.gguf_models import write_llama, write_with_head
from tests.engine.projectors import write_ears, write_eyes
from tests.model_shapes import HALF_BILLION, write_shape
from tests.tiny_diffusion import write_tiny_diffusion
from tests.tone_recognizer import write_recognizer
from tests.tone_speakers import write_speakers
from tests.tone_voice import write_voice
from tests.whisper_models import write_whisper


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LLM_BACKEND_MODELS_DIR", str(tmp_path))
    return tmp_path


def run(*words: str, **more: object) -> Result:
    return CliRunner().invoke(app, ["models", *words], env={"COLUMNS": "200"}, **more)


def test_models_list_and_show_include_voices(folder):
    write_voice(folder / "someone" / "tones")
    listed = run("list").stdout
    shown = run("show", "someone/tones").stdout

    assert "someone/tones/model.onnx" in listed
    assert "vits voice" in listed
    assert "reads texts aloud" in shown
    assert "Speakers: low, high" in shown
    assert "Memory: 200 MB" in shown
    assert "200 MB of memory" in " ".join(listed.split())
    assert run("remove", "someone/tones", "--yes").stdout.startswith("Removed")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("write", "kind", "shown"),
    [
        (lambda folder: write_whisper(folder / "one.bin"), "whisper", "transcribes recordings"),
        (lambda folder: write_tiny_diffusion(folder / "one.gguf"), "draws images", "M parameters"),
        (lambda folder: write_speakers(folder / "one"), "speakers", "Tells speakers apart"),
    ],
)
def test_models_list_and_show_include_the_memory_of_other_models(folder, write, kind, shown):
    write(folder)
    (record,) = json.loads(run("list", "--json").stdout)
    listed = " ".join(run("list").stdout.split())
    told = run("show", record["name"].partition("/")[0]).stdout
    memory = f"{record['memory_bytes'] / 1e6:,.0f} MB"

    assert record["memory_bytes"] > 0
    assert kind in listed
    assert f"{memory} of memory" in listed
    assert shown in told
    assert f"Memory: {memory}" in told


@pytest.mark.parametrize("write", [write_recognizer, write_speakers])
def test_models_list_as_json_has_no_languages_of_a_model_without_any(folder, write):
    write(folder / "one")

    (record,) = json.loads(run("list", "--json").stdout)

    assert record["description"]
    assert "languages" not in record


def test_models_list_shows_headers_and_sizes(folder):
    assert "No models in" in run("list").stdout
    (folder / "owner/name").mkdir(parents=True)
    write_llama(folder / "owner/name/tiny.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    (folder / "more-00002-of-00002.gguf").write_bytes(b"GGUF")

    broken, tiny = json.loads(run("list", "--json").stdout)

    assert (tiny["name"], tiny["architecture"]) == ("owner/name/tiny.gguf", "llama")
    assert tiny["context_tokens"] == 512
    assert tiny["bytes"] == (folder / "owner/name/tiny.gguf").stat().st_size
    assert "is cut short" in broken["error"]
    assert "owner/name/tiny.gguf" in run("list").stdout


def test_models_list_fits_80_columns_and_cuts_no_name_off(folder):
    name = f"owner/{'long-' * 20}name.gguf"
    (folder / "owner").mkdir()
    write_llama(folder / name)
    write_llama(folder / "tiny.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF")

    lines = run("list").stdout.splitlines()

    assert name in lines
    words = [line for line in lines if name not in line and str(folder) not in line]
    assert max(map(len, words)) <= 80
    assert "    0 MB; from " in lines[-1]
    assert lines[-1].endswith("; llama; 0 M parameters; 512 tokens of context")


def test_models_list_shows_the_last_use_that_is_in_the_database(folder, monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(folder / "data"))
    write_llama(folder / "tiny.gguf")
    write_llama(folder / "other.gguf")
    day = 1_750_000_000

    async def use() -> None:
        (folder / "data").mkdir()
        async with Database.open(load_settings().database) as database:
            await migrate(database)
            for model, minute_at in (("tiny", day - 86_400), ("tiny", day), ("far", day + 86_400)):
                key = UsageKey(minute_at, "completions", "p", "k", "", model, "", False, "")
                await StoredUsage(database).add({key: [1] + [0] * (len(AMOUNTS) - 1)})

    asyncio.run(use())
    other, tiny = json.loads(run("list", "--json").stdout)

    assert (other["last_used_at"], tiny["last_used_at"]) == (None, day)
    assert "; last used 2025-06-15; llama" in run("list").stdout


def test_models_show_prints_header_template_and_memory(folder):
    write_llama(folder / "tiny.gguf")

    stdout = run("show", "tiny.gguf").stdout

    assert "llama.context_length = 512" in stdout
    assert "Chat template:\n{% for m in messages %}" in stdout
    assert "Memory with 8 slots, cells of f16" in stdout
    assert "in all" in stdout
    assert "llama.block_count = 4" in run("show", "builtin").stdout


def served_plan(settings: Settings) -> str:
    """Returns the plan of the only served model."""
    [served] = build_served_models(settings)
    return ModelPlanner(settings.memory_budget).plan(served, [served]).engine.plan


@pytest.mark.parametrize("entry", ["tiny.gguf", "{path: tiny.gguf}"])
def test_models_show_plans_a_served_model_as_serve_does(folder, entry):
    write_llama(folder / "tiny.gguf")
    draft = write_llama(folder / "draft.gguf")
    config = folder / "config.yaml"
    config.write_text(f"models: [{entry}]\ndraft_models: [{draft}]\ndraft_tokens: 64")

    shown = run("show", "tiny.gguf", "--config", str(config)).stdout

    plan = served_plan(load_settings({}, config))
    assert f"On this machine, alone: {plan}" in " ".join(shown.split())


def test_models_show_needs_no_other_model_of_the_settings(folder):
    write_llama(folder / "tiny.gguf")
    config = folder / "config.yaml"
    config.write_text("models: [tiny.gguf, gone.gguf]")

    shown = run("show", "tiny.gguf", "--config", str(config))

    assert shown.exit_code == 0, shown.output
    assert "On this machine, alone:" in " ".join(shown.stdout.split())


def test_models_show_plans_a_file_beside_the_settings_as_serve_does(folder):
    write_shape(folder / "large.gguf", HALF_BILLION)
    config = folder / "config.yaml"
    config.write_text("models: [none]\ndraft_tokens: 64\nslots: 3")

    shown = run("show", "large.gguf", "--config", str(config)).stdout

    plan = served_plan(load_settings({"models": ["large.gguf"]}, config))
    assert f"On this machine, alone: {plan}" in " ".join(shown.split())


def test_models_show_includes_used_and_unused_draft_heads(folder):
    write_with_head(folder / "one.gguf")
    write_with_head(folder / "three.gguf", heads=3)

    assert "Draft heads: 1, drafts tokens" in run("show", "one.gguf").stdout
    told = run("show", "three.gguf").stdout
    assert "Draft heads: 3, not used, because there are 3 of them" in told


def test_models_show_prints_the_projector(folder):
    write_llama(folder / "tiny.gguf")
    (folder / "elsewhere").mkdir()
    eyes = write_eyes(folder / "mmproj-tiny-f16.gguf")
    ears = write_ears(folder / "elsewhere/ears.gguf")
    config = folder / "config.yaml"
    config.write_text("models: [{path: tiny.gguf, mmproj: elsewhere/ears.gguf}]")

    beside = " ".join(run("show", "tiny.gguf").stdout.split())
    configured = " ".join(run("show", "tiny.gguf", "--config", str(config)).stdout.split())
    itself = " ".join(run("show", eyes.name).stdout.split())

    assert f"Projector {eyes}: sees images, 67 MB" in beside
    assert f"Projector {ears}: hears and transcribes audio, 71 MB" in configured
    assert "sees images" not in configured
    assert "sees images" in itself
    assert "Memory" not in itself


def test_models_remove_needs_confirmation(folder):
    path = folder / "owner/name/tiny.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")

    cancelled = run("remove", "owner/name", input="n\n")
    assert cancelled.exit_code == 1
    assert path.exists()
    removed = run("remove", "owner/name", "--yes")

    assert removed.exit_code == 0, removed.output
    assert list(folder.iterdir()) == []


def test_models_remove_refuses_files_outside_the_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "mine.gguf"
    elsewhere.write_bytes(b"GGUF")

    refused = run("remove", str(elsewhere), "--yes")

    assert refused.exit_code == 1
    assert "delete it by hand" in refused.stderr
    assert elsewhere.exists()


def test_models_show_refuses_a_truncated_model(folder):
    path = write_llama(folder / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:-1])
    result = run("show", "tiny.gguf")

    assert result.exit_code == 1
    assert "tiny.gguf is cut short: its tensors would end at byte" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("words", [("show", "none.gguf"), ("remove", "a/b"), ("pull", "nothing")])
def test_models_commands_report_a_missing_model_in_one_sentence(folder, words):
    result = run(*words)

    assert result.exit_code == 1
    assert result.stderr.startswith("llm-backend: ")
    assert result.stderr.count("\n") == 1


def test_models_remove_of_an_unknown_name_names_folder_and_near_name(folder):
    (folder / "Qwen" / "Tiny-0.6B-GGUF").mkdir(parents=True)
    write_llama(folder / "Qwen" / "Tiny-0.6B-GGUF" / "tiny-0.6b-q8_0.gguf")
    unknown = run("remove", "nope", "--yes").stderr

    assert f"Cannot read the model nope: there is no such file, here or in {folder}." in unknown
    assert "Did you mean" not in unknown
    for near in ("Tiny-0.6B-GUF", "Tiny-0.6B", "Qwen/Tiny-0.6B-GUF"):
        assert "Did you mean Qwen/Tiny-0.6B-GGUF?" in run("remove", near, "--yes").stderr
    named = run("remove", "tiny-0.6b-q8_0", "--yes").stderr
    assert "Did you mean Qwen/Tiny-0.6B-GGUF/tiny-0.6b-q8_0.gguf?" in named


def test_models_list_shows_a_link_to_a_missing_file(folder):
    write_llama(folder / "one.gguf")
    (folder / "two.gguf").symlink_to("/nowhere.gguf")
    ran = run("list")

    assert ran.exit_code == 0
    assert "one.gguf" in ran.stdout
    assert "two.gguf cannot be read: No such file or directory." in " ".join(ran.stdout.split())


def test_models_remove_takes_a_closed_standard_input_for_no(folder):
    write_llama(folder / "one.gguf")
    program = [sys.executable, "-m", "llm_backend", "models", "remove", "one.gguf"]
    ran = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *program], capture_output=True, text=True, check=False
    )

    assert (ran.returncode, ran.stderr.splitlines()[-1:]) == (1, ["Aborted."])
    assert (folder / "one.gguf").exists()


def test_models_remove_suggests_no_name_that_was_given(folder):
    ran = run("remove", "builtin")

    assert ran.exit_code == 1
    assert "Did you mean" not in ran.stderr
