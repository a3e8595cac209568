"""Answers read aloud and messages dictated on the page, by real voices and transcriptions."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from tests.browser import screenshot, tab
from tests.serving import Served, serve
from tests.voice import PROGRAM, require_voice
from tests.whisper_models import require_transcription, write_whisper

PLAYED = """() => {
    const play = HTMLMediaElement.prototype.play;
    HTMLMediaElement.prototype.play = function () {
        this.addEventListener("ended", () => (document.body.dataset.playedSeconds = this.duration));
        return play.call(this);
    };
}"""

# Audio that never ends by itself, so that a busy machine can stop it in time.
ENDLESS = """() => {
    const pause = HTMLMediaElement.prototype.pause;
    HTMLMediaElement.prototype.play = async function () {};
    HTMLMediaElement.prototype.pause = function () {
        window.paused = true;
        return pause.call(this);
    };
}"""


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    require_transcription()
    require_voice()
    folder = tmp_path_factory.mktemp("speaking")
    model = write_whisper(folder / "hello.bin")
    voice = {"LLM_BACKEND_VOICE_PROGRAM": PROGRAM}
    with serve(folder, "--model", "builtin", "--model", str(model), environment=voice) as one:
        yield one


def test_a_message_is_dictated_into_the_field(browser, speaking):
    with tab(browser, speaking.address) as page:
        page.goto("/")
        page.get_by_label("Message", exact=True).fill("First:")
        page.get_by_role("button", name="Dictate").click()
        stop = page.get_by_role("button", name="Stop recording")
        expect(stop).to_be_visible()
        page.wait_for_timeout(500)  # of audio
        screenshot(page, "dictation")
        stop.click()

        expect(page.get_by_label("Message", exact=True)).to_have_value(
            re.compile(r"^First: Hello world\.")
        )
        expect(page.get_by_role("button", name="Dictate")).to_be_enabled()


def test_an_answer_is_read_aloud_and_stopped(browser, speaking):
    with tab(browser, speaking.address) as page:
        page.add_init_script(f"({PLAYED})()")
        page.goto("/")
        page.get_by_label("Message", exact=True).fill("Hello!")
        page.keyboard.press("Enter")
        read = page.get_by_role("button", name="Read aloud")
        read.click()
        expect(page.locator("body")).to_have_attribute("data-played-seconds", re.compile(r"[1-9]"))
        page.evaluate(ENDLESS)
        read.click()
        page.get_by_role("button", name="Stop reading").click()

        expect(read).to_be_visible()
        assert page.evaluate("window.paused"), "the audio goes on"


def test_a_new_chat_ends_reading_and_dictation(browser, speaking):
    with tab(browser, speaking.address) as page:
        page.goto("/")
        page.get_by_label("Message", exact=True).fill("Hello!")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Read aloud")).to_be_visible()
        page.evaluate(ENDLESS)
        page.get_by_role("button", name="Dictate").click()
        expect(page.get_by_role("button", name="Stop recording")).to_be_visible()
        page.get_by_role("button", name="Read aloud").click()
        expect(page.get_by_role("button", name="Stop reading")).to_be_visible()

        page.get_by_role("button", name="New chat").click()

        expect(page.get_by_role("button", name="Dictate")).to_be_enabled()
        expect(page.get_by_label("Message", exact=True)).to_have_value("")
        assert page.evaluate("window.paused"), "the audio goes on"


def test_a_message_that_is_transcribed_for_a_chat_that_was_left_joins_no_other(browser, speaking):
    with tab(browser, speaking.address) as page:
        page.goto("/")
        held: list[Route] = []
        page.route("**/v1/audio/transcriptions", lambda route: held.append(route))
        page.get_by_role("button", name="Dictate").click()
        with page.expect_request("**/v1/audio/transcriptions"):
            page.get_by_role("button", name="Stop recording").click()
        page.get_by_role("button", name="New chat").click()
        held[0].fulfill(json={"text": "For another chat."})
        expect(page.get_by_role("button", name="Dictate")).to_be_enabled()

        expect(page.get_by_label("Message", exact=True)).to_have_value("")


def test_a_refused_microphone_is_an_alert(browser, speaking):
    with tab(browser, speaking.address) as page:
        page.goto("/")
        page.evaluate(
            """() => {
                navigator.mediaDevices.getUserMedia = async () => {
                    throw new DOMException("Permission denied", "NotAllowedError");
                };
            }"""
        )
        page.get_by_role("button", name="Dictate").click()

        expect(page.get_by_role("alert")).to_contain_text("microphone cannot be used")


def test_without_models_for_it_there_are_no_buttons(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")

        expect(page.locator("#dictate")).to_be_hidden()
