"""Files that go with what is said in the terminal."""

import base64
from pathlib import Path

import pytest

from llm_backend.cli import attachments
from llm_backend.cli.attachments import AttachmentError, attachment
from tests.media_files import image, wav


def test_attachment_of_an_image_is_detected_by_its_bytes(tmp_path):
    (tmp_path / "a cat").write_bytes(image())

    part = attachment(str(tmp_path / "a cat"))

    assert part["type"] == "image_url"
    head, data = part["image_url"]["url"].split(",")
    assert (head, base64.b64decode(data)) == ("data:image/png;base64", image())


@pytest.mark.parametrize(
    ("data", "format"), [(wav(), "wav"), (b"ID3\x04mp3", "mp3"), (b"\xff\xfb\x90", "mp3")]
)
def test_attachment_of_audio_has_its_format(tmp_path, data, format):
    (tmp_path / "said").write_bytes(data)

    part = attachment(str(tmp_path / "said"))

    assert part["type"] == "input_audio"
    assert part["input_audio"]["format"] == format
    assert base64.b64decode(part["input_audio"]["data"]) == data


@pytest.mark.parametrize("written", ["'{}'", '"{}"', "{escaped}", "{}"])
def test_attachment_path_may_be_quoted_or_escaped(tmp_path, written):
    path = tmp_path / "a cat.png"
    path.write_bytes(image())
    escaped = str(path).replace(" ", "\\ ")

    assert attachment(written.format(path, escaped=escaped))["type"] == "image_url"


def test_attachment_that_fails_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "note.txt").write_text("Hello")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    monkeypatch.setattr(attachments, "LIMIT_BYTES", 1 << 20)

    for name, why in {
        "missing": "missing cannot be read: No such file or directory.",
        "": "cannot be read: Is a directory.",
        "large": "large is larger than 1 MiB.",
        "'half": "'half cannot be read: No such file or directory.",
        "note.txt": r"note.txt is neither an image \(PNG, JPEG, WebP, GIF\) nor audio",
    }.items():
        with pytest.raises(AttachmentError, match=why):
            attachment(f"{tmp_path}/{name}")


def test_attachment_path_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Path(tmp_path / "cat.png").write_bytes(image())

    assert attachment("~/cat.png")["type"] == "image_url"
