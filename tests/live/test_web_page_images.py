"""Messages to a model that draws, in a real browser, over an image server."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import accessibility_violations, screenshot, tab
from tests.image_server import FakeImageServer, decoded, image_file, running
from tests.live.conftest import delete_chats
from tests.live.test_web_page import say, wait_answered
from tests.patience import wait_until
from tests.serving import Served, serve
from tests.tiny_diffusion import use_library, write_tiny_diffusion

COLOUR_OF = """async (image) => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""
RED, BLUE = [255, 0, 0], [0, 0, 255]


@dataclass(frozen=True)
class Studio:
    """A server with the built-in model, and with models that an image server draws with."""

    painter: FakeImageServer
    release: Callable[[], None]
    served: Served

    def files(self) -> list[dict[str, str]]:
        """The stored files."""
        found: list[dict[str, str]] = httpx.get(f"{self.served.base_url}/files").json()["data"]
        return found


@pytest.fixture(scope="module")
def opened_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder, painter = tmp_path_factory.mktemp("studio"), FakeImageServer()
    with running(painter) as release:
        config = folder / "images.yaml"
        config.write_text(json.dumps({"backends": [painter.backend()]}))  # which is YAML
        with serve(folder, "--config", str(config), "--model", "builtin") as served:
            yield Studio(painter, release, served)


@pytest.fixture
def studio(opened_studio: Studio) -> Studio:
    """The studio as it was opened: nothing of other tests is drawn, said or stored."""
    painter = opened_studio.painter
    painter.is_held, painter.share, painter.answer, painter.interrupted = False, 0.9, None, 0
    painter.release.clear()
    painter.drawings.clear()
    delete_chats(opened_studio.served)
    for file in opened_studio.files():
        httpx.delete(f"{opened_studio.served.base_url}/files/{file['id']}").raise_for_status()
    assert opened_studio.files() == []
    return opened_studio


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    with tab(browser, studio.served.address, expected_error=r"50\d|404") as one:
        one.goto("/")
        one.get_by_label("Model", exact=True).select_option("sd-one")
        expect(one.locator("#greeting-model")).to_have_text("sd-one draws what you write.")
        yield one


def test_message_becomes_an_image_that_is_saved_and_there_on_return(page, studio, tmp_path):
    painter = studio.painter
    painter.is_held, painter.share = True, 0.5
    say(page, "a red\nlighthouse [in fog]")
    image = page.locator("article.answer img")
    bar = page.get_by_role("progressbar", name="Progress of the image")
    expect(bar).to_be_visible()
    expect(image).to_be_visible()
    assert image.evaluate(COLOUR_OF) == BLUE
    assert 0 < bar.evaluate("(bar) => bar.value") < 1
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    screenshot(page, "drawing-preview")
    studio.release()
    wait_answered(page)
    save = page.get_by_role("button", name="Save the image")
    expect(save).to_be_visible()
    expect(bar).to_have_count(0)
    expect(page.locator("#announcer")).to_contain_text("The image is drawn.")
    with page.expect_download() as download:
        save.click()
    download.value.save_as(tmp_path / "image.png")

    assert download.value.suggested_filename == "image.png"
    assert decoded((tmp_path / "image.png").read_bytes()).getpixel((0, 0)) == tuple(RED)
    assert accessibility_violations(page) == {}
    screenshot(page, "drawn-image")
    listed = page.locator("#chats a[aria-current]")
    expect(listed).to_have_text("a red")
    page.reload()
    expect(image).to_be_visible()
    assert image.evaluate(COLOUR_OF) == RED
    expect(image).to_have_attribute("alt", "a red lighthouse in fog")
    expect(page.get_by_label("Model", exact=True)).to_have_value("sd-one")
    (file,) = studio.files()
    assert (file["purpose"], file["filename"]) == ("vision", "image.png")
    listed.hover()
    page.get_by_role("button", name="Delete a red").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(image).to_have_count(0)
    expect(page.locator("#chats")).not_to_contain_text("a red")
    page.wait_for_function(
        "fetch('v1/files').then((one) => one.json()).then((one) => !one.data.length)"
    )


def test_chat_goes_on_with_a_model_that_writes_and_with_another_image(page, studio):
    say(page, "a lighthouse")
    wait_answered(page)
    page.get_by_label("Model", exact=True).select_option("builtin")
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "Hello!")
    wait_answered(page, 2)
    page.get_by_label("Model", exact=True).select_option("sd-two")
    say(page, "a boat")
    wait_answered(page, 3)

    (file, other) = studio.files()
    texts = [one["content"] for one in asked.value.post_data_json["messages"]]
    assert texts[0] == "a lighthouse"
    assert texts[1] in {f"![a lighthouse](v1/files/{one['id']}/content)" for one in (file, other)}
    assert [fields["prompt"] for _, fields in studio.painter.drawings] == ["a lighthouse", "a boat"]
    expect(page.locator("#chats a")).to_have_count(1)
    page.reload()
    expect(page.locator("article.answer img")).to_have_count(2)
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator("article.answer", has_text="2 of 2").locator("img")).to_be_visible()


def test_opened_chat_offers_to_attach_what_its_model_takes(page, studio):
    expect(page.get_by_role("button", name="Attach files")).to_be_visible()
    document = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Some notes."}
    page.locator("#files").set_input_files(document)
    expect(page.get_by_role("alert")).to_have_text("notes.txt is no image.")
    say(page, "a lighthouse")
    wait_answered(page)
    page.get_by_role("button", name="New chat").click()
    page.get_by_label("Model", exact=True).select_option("builtin")
    page.locator("#files").set_input_files(document)
    expect(page.locator("#documents li")).to_have_text("notes.txt")
    page.get_by_role("button", name="Remove notes.txt").click()
    page.locator("#chats a", has_text="a lighthouse").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("sd-one")
    page.locator("#files").set_input_files(document)

    expect(page.get_by_role("alert")).to_have_text("notes.txt is no image.")


def test_attached_image_is_drawn_anew(page, studio):
    file = image_file("green", (64, 64))
    page.locator("#files").set_input_files(
        {"name": "green.png", "mimeType": "image/png", "buffer": file}
    )
    say(page, "a red door")
    wait_answered(page)

    ((way, fields),) = studio.painter.drawings
    assert (way, fields["prompt"]) == ("img2img", "a red door")
    assert decoded(fields["init_images"][0]).convert("RGB").getpixel((0, 0)) == (0, 128, 0)


def test_stop_ends_the_drawing_and_returns_the_message(page, studio):
    studio.painter.is_held = True
    say(page, "a lighthouse")
    expect(page.locator("article.answer img")).to_be_visible()
    page.get_by_role("button", name="Stop").click()

    expect(page.get_by_label("Message")).to_have_value("a lighthouse")
    expect(page.locator("article")).to_have_count(0)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()
    wait_until(lambda: studio.painter.interrupted == 1)


def begin_and_leave_a_drawing(page: Page, studio: Studio, prompt: str) -> None:
    studio.painter.is_held, studio.painter.share = True, 0.5
    say(page, prompt)
    expect(page.locator("article.answer img")).to_be_visible()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_drawing_goes_on_while_another_chat_is_open(page, studio):
    begin_and_leave_a_drawing(page, studio, "a lighthouse")
    running = page.locator("#chats .is-running", has_text="a lighthouse")
    expect(running).to_be_visible()
    page.get_by_label("Model", exact=True).select_option("builtin")
    say(page, "Hello!")
    wait_answered(page)
    studio.release()
    expect(running).to_have_count(0)
    page.locator("#chats a", has_text="a lighthouse").click()

    image = page.locator("article.answer img")
    expect(image).to_be_visible()
    assert image.evaluate(COLOUR_OF) == RED
    assert len(studio.painter.drawings) == 1
    assert len(studio.files()) == 1


def test_chat_that_is_opened_again_shows_how_far_its_drawing_is(page, studio):
    begin_and_leave_a_drawing(page, studio, "a lighthouse")
    page.locator("#chats .is-running a").click()
    image = page.locator("article.answer img")
    expect(image).to_be_visible()
    assert image.evaluate(COLOUR_OF) == BLUE
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    studio.release()
    wait_answered(page)

    expect(page.get_by_role("button", name="Save the image")).to_be_visible()
    assert image.evaluate(COLOUR_OF) == RED
    expect(page.locator("#chats a")).to_have_count(1)


def test_failure_of_a_drawing_whose_chat_was_left_offers_to_draw_again(page, studio):
    begin_and_leave_a_drawing(page, studio, "a lighthouse")
    studio.painter.answer = lambda _fields: (500, {"error": "out of memory"})
    studio.release()
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("a lighthouse: ")
    expect(page.locator("#chats .is-running")).to_have_count(0)
    studio.painter.answer = None
    notice.get_by_role("button", name="Try again").click()

    wait_answered(page)
    expect(page.locator("article.answer img")).to_be_visible()
    expect(page.locator("article.question p")).to_have_text("a lighthouse")


def test_error_of_the_image_server_is_shown_and_the_message_is_there_to_be_sent(page, studio):
    studio.painter.answer = lambda _fields: (500, {"error": "out of memory"})
    say(page, "a lighthouse")
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("out of memory")
    expect(page.get_by_label("Message")).to_have_value("a lighthouse")
    screenshot(page, "drawing-error")
    studio.painter.answer = None
    notice.get_by_role("button", name="Try again").click()

    wait_answered(page)
    expect(page.locator("article.answer img")).to_be_visible()
    expect(notice).to_be_hidden()


def test_image_that_could_not_be_stored_is_shown_with_the_reason(page, studio):
    page.route("**/v1/chat/stored", lambda route: route.fulfill(status=503, body="{}"))
    say(page, "a lighthouse")

    expect(page.get_by_role("alert")).to_contain_text("The answer is whole, but may not be stored.")
    expect(page.locator("article.answer img")).to_be_visible()
    expect(page.get_by_role("button", name="Save the image")).to_be_visible()
    assert studio.files() == []


def test_image_whose_file_is_gone_is_reported(page, studio):
    say(page, "a lighthouse")
    wait_answered(page)
    (file,) = studio.files()
    httpx.delete(f"{studio.served.base_url}/files/{file['id']}").raise_for_status()
    page.reload()

    expect(page.get_by_text("This image is not stored any more.")).to_be_visible()


def limit_next_answer(page: Page) -> None:
    """Has the next answer be cut after two tokens."""
    page.route(
        "**/v1/chat/completions",
        lambda route: route.continue_(
            post_data=json.dumps(route.request.post_data_json | {"max_tokens": 2})
        ),
        times=1,
    )


def test_cut_answer_goes_on_with_the_model_that_wrote_it_while_one_that_draws_is_chosen(
    page, studio
):
    page.get_by_label("Model", exact=True).select_option("builtin")
    limit_next_answer(page)
    say(page, "Hello!")
    wait_answered(page)
    models = []
    for is_opened_again in (False, True):
        if is_opened_again:
            page.reload()
        expect(page.locator("article.answer")).to_contain_text("Cut short")
        page.get_by_label("Model", exact=True).select_option("sd-one")
        limit_next_answer(page)
        with page.expect_request("**/v1/chat/completions") as asked:
            page.get_by_role("button", name="Go on").click()
        models.append(asked.value.post_data_json["model"])
        wait_answered(page)

    assert models == ["builtin", "builtin"]
    assert studio.painter.drawings == []


def test_deleted_chat_keeps_a_file_that_a_model_named_and_the_page_did_not_draw(page, studio):
    base_url = studio.served.base_url
    kept = [
        httpx.post(
            f"{base_url}/files", data={"purpose": purpose}, files={"file": (name, b"mine")}
        ).json()["id"]
        for purpose, name in (("assistants", "image.png"), ("vision", "image.png"))
    ]
    say(page, "a lighthouse")
    wait_answered(page)
    (stored,) = httpx.get(f"{base_url}/chat/completions").json()["data"]
    for id in kept:
        httpx.post(
            f"{base_url}/chat/stored",
            json={
                "model": "builtin",
                "messages": [{"role": "user", "content": "a lighthouse"}],
                "answer": f"![mine](v1/files/{id}/content)",
                "metadata": stored["metadata"],
            },
        ).raise_for_status()
    page.reload()
    page.locator("#chats a").first.hover()
    page.get_by_role("button", name="Delete a lighthouse").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_function(
        "fetch('v1/files').then((one) => one.json()).then((one) => one.data.length < 3)"
    )

    expect(page.locator("#chats")).not_to_contain_text("a lighthouse")
    assert {file["id"] for file in studio.files()} == set(kept)


def test_images_of_every_branch_are_deleted_with_a_chat_that_was_opened_again(page, studio):
    say(page, "a lighthouse")
    wait_answered(page)
    page.reload()
    expect(page.locator("article.answer img")).to_be_visible()
    page.get_by_role("button", name="Answer again").click()
    expect(page.locator("article.answer", has_text="2 of 2").locator("img")).to_be_visible()
    page.reload()
    variant = page.locator("article.answer", has_text="2 of 2")
    expect(variant.locator("img")).to_be_visible()
    page.get_by_role("button", name="Earlier answer").click()
    expect(page.locator("article.answer", has_text="1 of 2").locator("img")).to_be_visible()
    say(page, "a boat")
    wait_answered(page, 2)
    stored = studio.files()
    page.locator("#chats a").hover()
    page.get_by_role("button", name="Delete a lighthouse").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.wait_for_function(
        "fetch('v1/files').then((one) => one.json()).then((one) => !one.data.length)"
    )

    assert len(stored) == 3


def test_image_is_deleted_with_the_last_of_the_chats_that_show_it(page, studio, tmp_path):
    say(page, "a lighthouse")
    wait_answered(page)
    page.get_by_role("button", name="Options").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save JSON").click()
    download.value.save_as(tmp_path / "chat.json")
    page.locator("#chat-file").set_input_files(tmp_path / "chat.json")
    say(page, "a boat")
    wait_answered(page, 2)
    counts = []
    for left in (1, 0):
        page.locator("#chats a").last.hover()
        page.get_by_role("button", name="Delete a lighthouse").last.click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator("#chats a")).to_have_count(left)
        counts.append(len(studio.files()))

    assert counts[0] == 2
    page.wait_for_function(
        "fetch('v1/files').then((one) => one.json()).then((one) => !one.data.length)"
    )


def test_views_of_two_models_offer_no_model_that_draws(page, studio):
    page.goto("/#/compare")
    sides = page.locator("#compare-view select")
    expect(sides).to_have_count(2)
    for side in sides.all():
        assert "builtin" in side.locator("option").all_inner_texts()
        assert not {"sd-one", "sd-two"} & set(side.locator("option").all_inner_texts())
        expect(side).not_to_have_value("")
    page.get_by_label("Question to both models").fill("Hello!")
    page.get_by_role("button", name="Ask both").click()

    answers = page.locator("#compare-view article")
    expect(page.locator("#compare-view [aria-busy]")).to_have_count(0)
    expect(answers).to_have_count(2)
    for answer in answers.all():
        expect(answer.locator(".prose")).not_to_be_empty()
    assert studio.painter.drawings == []


WATCH_PREVIEWS = """() => {
  const look = () => { if (document.querySelector(".is-growing img")) window.hadPreview = true; };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true });
}"""


def test_local_model_is_offered_by_its_names_and_shows_previews(browser, tmp_path):
    write_tiny_diffusion(tmp_path / "tiny.gguf")
    parameters = "{cfg_scale: 1, width: 64, height: 64}"
    (tmp_path / "images.yaml").write_text(
        f"image_models: {{tiny: {{steps: {{medium: 8}}, parameters: {parameters}}}}}"
    )
    flags = ("--model", str(tmp_path / "tiny.gguf"), "--alias", "gpt-image-1=tiny")
    with (
        pytest.MonkeyPatch.context() as patch,
        serve(
            tmp_path,
            *flags,
            "--config",
            str(tmp_path / "images.yaml"),
            environment={"LLM_BACKEND_THREADS": "1", **use_library(patch)},
        ) as served,
        tab(browser, served.address) as page,
    ):
        page.goto("/")
        model = page.get_by_label("Model", exact=True)
        expect(model.locator("optgroup")).to_have_attribute("label", "Models that draw")
        expect(model.locator("option")).to_have_text(["tiny", "gpt-image-1"])
        model.select_option("gpt-image-1")
        page.evaluate(WATCH_PREVIEWS)  # one may be shown for less time than between two looks
        say(page, "a cat")
        wait_answered(page)
        assert page.evaluate("window.hadPreview")
        expect(page.locator("article.answer:not(.is-growing) img")).to_be_visible()
