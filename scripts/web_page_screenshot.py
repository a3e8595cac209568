"""Takes docs/images/web-page.png: the chat page in Chromium, over the served built-in model.

`make setup` and scripts/install_test_tools.sh first; then `python -m scripts.web_page_screenshot`.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser import chromium
from tests.serving import serve

SCREENSHOT = Path(__file__).parents[1] / "docs" / "images" / "web-page.png"
EARLIER = ("Write a haiku about tea", "Plan for Saturday", "Why is the sky blue?")
SHOWN = ("How do I load a real model?", "What is the base URL?", "What is 12 plus 30?")
COLOURS = 256  # the page has few: a palette makes the file a third of its size


def _ask(page: Page, text: str, answers: int) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("article.answer:not(.is-growing)")).to_have_count(answers)
    expect(page.locator("#chats a[aria-current]")).to_have_count(1)


def _take(address: str) -> bytes:
    with chromium() as browser:
        page = browser.new_page(
            viewport={"width": 1280, "height": 720}, device_scale_factor=1.5, base_url=address
        )
        page.goto("/")
        page.evaluate("localStorage.setItem('llm-backend.temperature', '0')")
        page.reload()
        for title in EARLIER:
            page.get_by_role("button", name="New chat").click()
            _ask(page, title, 1)
        page.get_by_role("button", name="New chat").click()
        for answers, text in enumerate(SHOWN, 1):
            _ask(page, text, answers)
        page.get_by_label("Message").blur()
        page.mouse.move(640, 500)
        return page.screenshot()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server:
        taken = Image.open(io.BytesIO(_take(server.address))).convert("RGB")
    taken.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        SCREENSHOT, optimize=True
    )


if __name__ == "__main__":
    main()
