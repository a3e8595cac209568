"""Screenshots are numbered by their times, and put on a sheet."""

import os
from pathlib import Path

from PIL import Image

from scripts.contact_sheet import COLUMNS, GAP, SHEET, WIDTH, draw_sheet, number_files


def taken(folder: Path, name: str, time: int, colour: str = "red") -> None:
    Image.new("RGB", (1280, 800), colour).save(folder / name)
    os.utime(folder / name, (time, time))


def test_files_are_numbered_by_the_time_they_were_taken(tmp_path):
    for time, name in enumerate(("chat.png", "a-b.png", "select.png")):
        taken(tmp_path, name, time)
    taken(tmp_path, SHEET, 9)

    assert [file.name for file in number_files(tmp_path)] == [
        "01-chat.png",
        "02-a-b.png",
        "03-select.png",
    ]


def test_screenshot_taken_again_replaces_the_numbered_one(tmp_path):
    taken(tmp_path, "01-chat.png", 1)
    taken(tmp_path, "02-select.png", 2)
    taken(tmp_path, "chat.png", 3, "blue")

    assert [file.name for file in number_files(tmp_path)] == ["01-select.png", "02-chat.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["01-select.png", "02-chat.png"]
    with Image.open(tmp_path / "02-chat.png") as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)


def test_sheet_shows_every_image_in_rows(tmp_path):
    for number in range(COLUMNS + 1):
        taken(tmp_path, f"{number}-x.png", number)
    files = sorted(tmp_path.iterdir())

    sheet = draw_sheet(files)
    at = GAP + WIDTH // 2
    assert sheet.getpixel((at, GAP + 10)) == (255, 0, 0)
    assert sheet.getpixel((at + (COLUMNS - 1) * (WIDTH + GAP), GAP + 10)) == (255, 0, 0)
    assert sheet.getpixel((at, sheet.height * 3 // 4)) == (255, 0, 0)
    assert sheet.getpixel((at + WIDTH + GAP, sheet.height * 3 // 4)) == (255, 255, 255)
