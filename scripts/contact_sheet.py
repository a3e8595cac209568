"""Numbers screenshots in the order in which they were taken, and puts all of them on one sheet.

    python -m scripts.contact_sheet [FOLDER]

`make screenshots` takes them first. The folder is `build/screenshots`; the sheet is
`contact-sheet.png` in it.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path("build/screenshots")
SHEET = "contact-sheet.png"
COLUMNS, WIDTH, HEIGHT, LABEL, GAP = 4, 480, 300, 24, 16  # pixels of an image, and around it
_NUMBERED = re.compile(r"^\d+-")


def number_files(folder: Path) -> Sequence[Path]:
    """Renames the screenshots of a folder to `01-NAME.png` and so on, by the time of the last
    change; returns them in this order. A number of an earlier run is replaced."""
    taken = sorted(
        (file for file in folder.glob("*.png") if file.name != SHEET),
        key=lambda file: (file.stat().st_mtime_ns, file.name),
    )
    latest = {_NUMBERED.sub("", file.name): file for file in taken}
    for file in set(taken) - set(latest.values()):
        file.unlink()
    digits = max(2, len(str(len(latest))))
    order = sorted(latest.items(), key=lambda named: taken.index(named[1]))
    return [
        file.rename(folder / f"{number:0{digits}}-{name}")
        for number, (name, file) in enumerate(order, 1)
    ]


def draw_sheet(files: Sequence[Path]) -> Image.Image:
    """Returns a sheet with all images, each above its file's name."""
    rows = -(-len(files) // COLUMNS)
    across, down = WIDTH + GAP, HEIGHT + LABEL + GAP
    sheet = Image.new("RGB", (COLUMNS * across + GAP, rows * down + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for place, file in enumerate(files):
        x, y = GAP + place % COLUMNS * across, GAP + place // COLUMNS * down
        with Image.open(file) as image:
            image.thumbnail((WIDTH, HEIGHT))
            sheet.paste(image, (x, y))
        pen.text((x, y + HEIGHT + LABEL // 4), file.stem, fill="black")
    return sheet


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    files = number_files(folder)
    if not files:
        sys.exit(f"There are no screenshots in {folder}.")
    draw_sheet(files).save(folder / SHEET, optimize=True)
    print(f"{len(files)} screenshots, and {folder / SHEET}")


if __name__ == "__main__":
    main()
