"""Config file watch: applies changes of local models, and refuses invalid files."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llm_backend.app import config_watch
from llm_backend.app.config_watch import watch_config
from llm_backend.settings.loading import SettingsSource
from tests.engine.gguf_models import write_llama


async def come_true(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 # another task makes it so
            await asyncio.sleep(0.01)


def put(file: Path, text: str) -> None:
    """Replaces the file atomically."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


async def test_config_watch_continues_after_a_failed_change(tmp_path: Path, caplog):
    file = tmp_path / "config.yaml"
    put(file, "models: []")
    source = SettingsSource(flags={"data_dir": tmp_path}, file=file)
    applied: list[int] = []

    async def serve(settings, _served) -> None:
        applied.append(settings.slots)
        if len(applied) == 1:
            raise FileNotFoundError("a model's file has just gone")

    watching = asyncio.create_task(watch_config(source, source.load(), serve, every_s=0.01))
    await asyncio.sleep(0)  # it has seen the file
    put(file, "models: []\nslots: 2\nlog_format: json")
    await come_true(lambda: "settings_need_restart" in caplog.text)
    put(file, "models: []\nslots: 33")
    await come_true(lambda: len(applied) == 2)
    watching.cancel()

    assert applied == [2, 33]
    assert "model_cannot_load" in caplog.text
    assert "config_file_refused" not in caplog.text


@asynccontextmanager
async def watched_folder(data_dir: Path) -> AsyncIterator[tuple[Path, list[list[str]]]]:
    """A watched folder with the model `first`, and the models served after each change."""
    source = SettingsSource(
        flags={"data_dir": data_dir, "models": ["none"], "serve_models_folder": True}, file=None
    )
    applied: list[list[str]] = []

    async def serve(_settings, served) -> None:
        applied.append([one.card.id for one in served])

    folder = data_dir / "models"
    folder.mkdir()
    write_llama(folder / "first.gguf")
    watching = asyncio.create_task(watch_config(source, source.load(), serve, every_s=0.01))
    await asyncio.sleep(0)  # it has seen the folder
    yield folder, applied
    watching.cancel()


async def test_models_folder_is_watched_if_its_models_are_served(tmp_path: Path):
    async with watched_folder(tmp_path) as (folder, applied):
        (folder / "second.new").write_bytes((folder / "first.gguf").read_bytes())
        (folder / "second.new").rename(folder / "second.gguf")
        await come_true(lambda: applied)
        (folder / "first.gguf").unlink()
        await come_true(lambda: len(applied) == 2)

    assert applied == [["first", "second"], ["second"]]


async def test_a_model_of_the_folder_is_renamed(tmp_path: Path):
    async with watched_folder(tmp_path) as (folder, applied):
        (folder / "first.gguf").rename(folder / "second.gguf")
        await come_true(lambda: applied)

    assert applied == [["second"]]


async def test_config_watch_continues_after_a_folder_that_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    source = SettingsSource(
        flags={"data_dir": tmp_path, "models": ["none"], "serve_models_folder": True}, file=None
    )
    applied: list[list[str]] = []
    lists = 0

    async def serve(_settings, served) -> None:
        applied.append([one.card.id for one in served])

    def list_in_vain(folder: Path) -> list[Path]:
        nonlocal lists
        lists += 1
        raise FileNotFoundError(f"{folder}/a was removed while it was listed")

    watching = asyncio.create_task(watch_config(source, source.load(), serve, every_s=0.01))
    await asyncio.sleep(0)  # it has seen that there is no folder
    with monkeypatch.context() as patch:
        patch.setattr(config_watch, "list_model_files", list_in_vain)
        await come_true(lambda: lists >= 2)
    (tmp_path / "models").mkdir()
    write_llama(tmp_path / "models/first.gguf")
    await come_true(lambda: ["first"] in applied)
    watching.cancel()

    assert caplog.text.count("config_watch_failed") == 1


@pytest.mark.parametrize(
    ("backend", "more", "setting"),
    [
        ("name: p, kind: sdapi", "image_models: {a: {steps: {low: 3}}}", "image_models"),
        ("name: p", "aliases: [fast=far]", "aliases"),
    ],
)
async def test_options_of_image_servers_and_aliases_of_upstream_models_need_a_restart(
    tmp_path: Path, caplog, backend: str, more: str, setting: str
):
    file = tmp_path / "config.yaml"
    head = f"models: []\nbackends: [{{{backend}, base_url: 'http://h', models: ['*']}}]\n"
    put(file, head)
    source = SettingsSource(flags={"data_dir": tmp_path}, file=file)

    async def serve(_settings, _served) -> None:
        pass

    watching = asyncio.create_task(watch_config(source, source.load(), serve, every_s=0.01))
    await asyncio.sleep(0)  # it has seen the file
    put(file, f"{head}{more}")
    await come_true(lambda: "settings_need_restart" in caplog.text)
    watching.cancel()

    (record,) = [one for one in caplog.records if one.message == "settings_need_restart"]
    assert record.settings == setting
