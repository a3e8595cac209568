import io

import pytest
from PIL import ExifTags, Image, ImageOps

from llm_backend.backends.local.media.images import BadImage, decode_image
from tests.media_files import image

LIMIT = 10_000_000


def read(data: bytes, detail: str = "auto", limit: int = LIMIT):
    return decode_image(data, detail=detail, limit=limit)


def saved(image: Image.Image, format: str = "PNG", **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "JPEG"])
def test_image_of_each_documented_format_is_decoded(format):
    red = Image.new("RGB", (3, 2), "red")

    pixels = read(saved(red, format))

    assert (pixels.width, pixels.height) == (3, 2)
    red, green, blue = pixels.data[:3]
    assert red > 240
    assert max(green, blue) < 10


@pytest.mark.parametrize(
    ("size", "detail", "expected"),
    [
        ((100, 50), "auto", (100, 50)),
        ((1000, 500), "low", (512, 256)),
        ((1000, 2000), "high", (768, 1536)),
        ((4000, 1000), "high", (2048, 512)),
        ((3000, 1500), "original", (2048, 1024)),
        ((2100, 1), "high", (2048, 1)),
    ],
)
def test_image_size_follows_its_detail(size, detail, expected):
    pixels = read(saved(Image.new("L", size)), detail)

    assert (pixels.width, pixels.height) == expected
    assert len(pixels.data) == 3 * expected[0] * expected[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_rotated_by_its_exif_orientation(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    corners = Image.frombytes("RGB", (3, 2), bytes(range(0, 180, 10)))
    file = saved(corners, exif=exif)

    pixels = read(file)

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    assert (pixels.width, pixels.height, pixels.data) == (*upright.size, upright.tobytes())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0ab", b"Exif\0\0what"])
def test_invalid_exif_data_are_ignored(exif, format):
    pixels = read(saved(Image.new("RGB", (40, 30), "red"), format, exif=exif))

    assert (pixels.width, pixels.height) == (40, 30)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("side", [1, 900])
def test_transparent_pixels_become_white(mode, side):
    clear = Image.new("RGBA", (side, side), (255, 0, 0, 0)).convert(mode)
    how = {"transparency": 0} if mode == "P" else {}

    assert read(saved(clear, **how)).data[:3] == b"\xff\xff\xff"


@pytest.mark.parametrize(
    ("mode", "colour", "format", "expected"),
    [
        ("1", 1, "PNG", 255),
        ("L", 100, "PNG", 100),
        ("I;16", 100 * 256 + 7, "PNG", 100),
        ("CMYK", (0, 0, 0, 0), "JPEG", 255),
    ],
)
def test_images_of_other_colour_modes_are_decoded(mode, colour, format, expected):
    data = read(saved(Image.new(mode, (2, 2), colour), format)).data

    assert data == bytes([expected] * 12)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GIF89a", "unsupported_image_media_type"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_media_type"),
        (saved(Image.new("RGB", (2, 2)), "BMP"), "unsupported_image_media_type"),
        (image()[:300], "image_parse_error"),
        (saved(Image.new("1", (9000, 9000))), "image_too_large"),
        (saved(Image.new("1", (15000, 15000))), "image_too_large"),
    ],
)
def test_invalid_image_is_refused(data, code):
    with pytest.raises(BadImage) as refused:
        read(data)

    assert refused.value.code == code
