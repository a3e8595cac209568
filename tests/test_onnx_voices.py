"""Files of ONNX voices: what is recognised, what they hold, and what is refused."""

import shutil

import pytest
from typer.testing import CliRunner

from llm_backend.app.served_models import build_served_models
from llm_backend.cli.program import app
from llm_backend.model_files import (
    HeaderError,
    ModelFileMissing,
    VoiceFamily,
    find_model_file,
    list_model_files,
    read_voice,
    remove_model,
)
from llm_backend.settings import Settings
from tests.engine.pocket_voice import write_pocket_voice
from tests.tone_voice import RATE_HZ, write_vocoder, write_voice


def test_a_voice_is_found_by_its_folder_and_lists_its_speakers(tmp_path):
    path = write_voice(tmp_path / "someone" / "tones")
    (tmp_path / "else.onnx").write_bytes(path.read_bytes())  # no tokens beside it
    voice = read_voice(path)

    assert list_model_files(tmp_path) == [path]
    for name in ("someone/tones", str(path.parent), str(path)):
        assert find_model_file(name, tmp_path) == path
    assert (voice.name, voice.family, voice.rate_hz) == ("tones", VoiceFamily.VITS, RATE_HZ)
    assert (voice.speakers, voice.language, voice.phonemizer) == (("low", "high"), "English", None)
    assert [voice.find_speaker(one) for one in ("high", "0", "2", "-1", "\u0661")] == [
        1, 0, None, None, None,
    ]  # fmt: skip
    assert voice.file_bytes < voice.memory_bytes


def test_a_voice_without_a_lexicon_needs_phonemes(tmp_path):
    assert read_voice(write_voice(tmp_path / "a", has_lexicon=False)).phonemizer == "en-us"


def test_families_need_their_files(tmp_path):
    kokoro = write_voice(tmp_path / "k", family="kokoro")
    matcha = write_voice(tmp_path / "m", family="matcha-tts")
    styles, vocoder = kokoro.with_name("voices.bin"), matcha.with_name("vocoder.onnx")

    assert (read_voice(kokoro).family, read_voice(kokoro).styles) == (VoiceFamily.KOKORO, styles)
    assert (read_voice(matcha).family, read_voice(matcha).vocoder) == (VoiceFamily.MATCHA, vocoder)
    assert list_model_files(tmp_path / "m") == [matcha]

    styles.unlink()
    vocoder.unlink()
    with pytest.raises(HeaderError, match=r"needs the file voices\.bin"):
        read_voice(kokoro)
    with pytest.raises(HeaderError, match="needs a vocoder of 8000 Hz beside it, for example"):
        read_voice(matcha)


def test_a_file_of_speakers_of_another_size_is_refused(tmp_path):
    path = write_voice(tmp_path / "k", family="kokoro")
    styles = path.with_name("voices.bin")
    styles.write_bytes(styles.read_bytes()[:-4])

    with pytest.raises(HeaderError, match=r"has 4,076 bytes, and model\.onnx needs 4,080"):
        read_voice(path)


@pytest.mark.parametrize("styles", ["510,1", "51,1,-1", "", "a,b,c"])
def test_styles_that_are_not_three_numbers_are_refused(tmp_path, styles):
    path = write_voice(tmp_path / "k", family="kokoro")
    path.write_bytes(path.read_bytes().replace(b"510,1,1", styles.encode().ljust(7)))

    with pytest.raises(HeaderError, match="`style_dim` is not three numbers"):
        read_voice(path)


def test_the_vocoder_of_the_models_sample_rate_is_taken(tmp_path):
    path = write_voice(tmp_path / "m", family="matcha-tts")
    path.with_name("vocoder.onnx").unlink()
    write_vocoder(path.with_name("a.onnx"), rate_hz=16_000, kind="matcha-tts vocos")
    with pytest.raises(HeaderError, match=r"of 8000 Hz beside it \(a\.onnx has 16000 Hz\)"):
        read_voice(path)
    write_vocoder(path.with_name("b.onnx"))

    assert read_voice(path).vocoder == path.with_name("b.onnx")
    assert list_model_files(tmp_path / "m") == [path]


def test_a_voice_that_is_cut_is_refused(tmp_path):
    path = write_voice(tmp_path / "tones")
    whole = path.read_bytes()
    for size in (*range(40), *range(40, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(HeaderError):
            read_voice(path)
    path.write_bytes(whole)

    assert read_voice(path).speakers == ("low", "high")


@pytest.mark.parametrize(
    "data", [b"GGUF" * 9, b"\xff" * 40, b"\x72\xff\xff\xff\x7f", b"\x0b\x01", bytes(1_000_000)]
)
def test_other_bytes_are_no_voice(tmp_path, data):
    path = write_voice(tmp_path / "tones")
    path.write_bytes(data)
    with pytest.raises(HeaderError):
        read_voice(path)

    assert list_model_files(tmp_path) == [path]  # it is listed, and says what is wrong


@pytest.mark.parametrize("names", ["[" * 100_000, "[]", '{"speaker_id_map": [1]}', " " * 2_000_000])
def test_names_of_speakers_that_cannot_be_read_are_an_error_of_the_voice(tmp_path, names):
    path = write_voice(tmp_path / "tones")
    path.with_name("model.onnx.json").write_text(names)

    with pytest.raises(HeaderError, match=r"model\.onnx\.json cannot be read"):
        read_voice(path)


@pytest.mark.parametrize("language", ["../../x", "-x", "a\0b", "x" * 100])
def test_a_language_that_is_none_is_refused(tmp_path, language):
    path = write_voice(tmp_path / "tones", language=language)

    with pytest.raises(HeaderError, match="`language` is not a language"):
        read_voice(path)


def test_two_voices_in_a_folder_are_named_by_their_files(tmp_path):
    path = write_voice(tmp_path / "tones")
    other = path.with_name("model.int8.onnx")
    other.write_bytes(path.read_bytes())
    with pytest.raises(ModelFileMissing, match=r"may be model\.int8\.onnx, model\.onnx"):
        find_model_file("tones", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileMissing, match="a folder without a voice"):
        find_model_file(str(tmp_path / "empty"), tmp_path)

    assert find_model_file("tones/model.int8.onnx", tmp_path) == other


def test_a_folder_without_a_voice_hides_no_model_of_the_hub(tmp_path, monkeypatch):
    model = tmp_path / "someone" / "plain" / "model.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)

    assert find_model_file("someone/plain", tmp_path) == model


def test_voices_of_the_folder_are_served_under_the_names_of_their_folders(tmp_path, caplog):
    write_voice(tmp_path / "a" / "tones")
    write_voice(tmp_path / "b" / "tones")
    broken = write_voice(tmp_path / "broken")
    broken.write_bytes(broken.read_bytes()[:100])
    settings = Settings(models=["none"], models_dir=tmp_path, serve_models_folder=True)
    served = {one.card.id: one for one in build_served_models(settings)}

    assert set(served) == {"tones", "b/tones/model"}
    assert dict(served["tones"].card.more)["file"] == "a/tones/model.onnx"
    assert not served["tones"].loads_at_start
    assert "model_file_refused" in caplog.text


def test_a_path_that_leads_out_of_a_voices_folder_removes_no_other_folder(tmp_path):
    path = write_voice(tmp_path / "models")
    (tmp_path / "models" / "v").mkdir()
    remove_model(tmp_path / "models" / "v" / ".." / path.name, tmp_path / "models")

    assert not path.exists()
    assert path.with_name("tokens.txt").exists()


def test_a_link_to_a_voice_is_removed_and_not_the_voice(tmp_path):
    path = write_voice(tmp_path / "elsewhere" / "tones")
    (tmp_path / "models").mkdir()
    link = tmp_path / "models" / "linked"
    link.symlink_to(path.parent)
    remove_model(link / path.name, tmp_path / "models")

    assert path.exists()
    assert not link.is_symlink()


def test_a_voice_is_removed_with_its_folder_and_nothing_else(tmp_path):
    alone = write_voice(tmp_path / "someone" / "alone")
    shared = write_voice(tmp_path / "shared")
    other = shared.with_name("model.int8.onnx")
    other.write_bytes(shared.read_bytes())
    remove_model(alone, tmp_path)
    remove_model(shared, tmp_path)

    assert list(tmp_path.iterdir()) == [tmp_path / "shared"]
    assert (other.exists(), shared.exists()) == (True, False)


def test_a_gguf_voice_without_its_projector_is_named(tmp_path, monkeypatch):
    model, _ = write_pocket_voice(tmp_path / "pocket")
    lone = tmp_path / "lone"
    lone.mkdir()
    shutil.copy(model, lone)
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(tmp_path / "data"))
    shown = CliRunner().invoke(app, ["models", "show", str(lone / model.name)]).stdout

    assert "A voice (Pocket TTS), which lacks the projector" in " ".join(shown.split())
