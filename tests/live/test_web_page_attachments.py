"""Files and images on the chat page: each belongs to the chat in which it was attached."""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.broken_streams import scripted_upstream
from tests.browser import ENDED_MEANWHILE, screenshot, tab
from tests.live.test_web_page import say, wait_answered
from tests.media_files import as_url, in_base64
from tests.patience import wait_until
from tests.serving import Served, serve

UPLOADS = "**/v1/files"
JOINS = re.compile(r"/v1/vector_stores/[^/]+/files$")
STATES = re.compile(r"/v1/vector_stores/[^/]+/files/[^/]+$")


def text_file(name: str) -> dict[str, Any]:
    return {"name": name, "mimeType": "text/plain", "buffer": b"The lamp hums.\n"}


@pytest.fixture
def page(browser: Browser, library_server: Served) -> Iterator[Page]:
    with tab(browser, library_server.address, ENDED_MEANWHILE) as one:
        one.goto("/")
        expect(one.get_by_role("button", name="Attach files")).to_be_visible()
        yield one


def attach(page: Page, *names: str) -> None:
    page.locator("#files").set_input_files([text_file(name) for name in names])


def hold(page: Page, address: str | re.Pattern[str], count: int = 1) -> list[Route]:
    """Holds the next requests back; the test lets each go on."""
    held: list[Route] = []
    page.route(address, lambda route: held.append(route), times=count)
    return held


def joins_of(page: Page) -> list[Request]:
    """The requests that add a file to a vector store, from now on."""
    joins: list[Request] = []
    page.on(
        "request", lambda one: one.method == "POST" and JOINS.search(one.url) and joins.append(one)
    )
    return joins


def test_a_file_that_is_uploaded_when_its_chat_is_left_joins_no_other_chat(page):
    joins, held = joins_of(page), hold(page, UPLOADS)
    with page.expect_request(UPLOADS):
        attach(page, "private.txt")
    page.get_by_role("button", name="New chat").click()
    attach(page, "new.txt")
    chips = page.get_by_label("Attached files").locator("li:not(.is-waiting)")
    expect(chips).to_have_text(["new.txt"])
    with page.expect_request(lambda one: one.method == "DELETE") as deleted:
        held[0].continue_()

    assert "/v1/files/file-" in deleted.value.url
    assert len(joins) == 1
    expect(chips).to_have_text(["new.txt"])


def test_a_file_that_is_removed_while_it_is_uploaded_is_deleted(page):
    joins, held = joins_of(page), hold(page, UPLOADS)
    with page.expect_request(UPLOADS):
        attach(page, "wrong.txt")
    page.get_by_role("button", name="Remove wrong.txt").click()
    with page.expect_request(lambda one: one.method == "DELETE") as deleted:
        held[0].continue_()

    assert "/v1/files/file-" in deleted.value.url
    assert joins == []
    expect(page.get_by_label("Attached files")).to_be_hidden()


def test_a_question_waits_for_all_files_that_were_attached_with_it(page):
    joins, held = joins_of(page), hold(page, UPLOADS, 2)
    attach(page, "one.txt", "two.txt")
    expect(page.get_by_label("Attached files").locator("li")).to_have_text(["one.txt", "two.txt"])
    say(page, "What hums?")
    wait_until(lambda: len(held) == 2, page.wait_for_timeout)
    with page.expect_request("**/v1/chat/completions") as asked:
        for route in held:
            route.continue_()
    stores = {one.url for one in joins}
    wait_answered(page)

    assert (len(joins), len(stores)) == (2, 1)
    assert asked.value.post_data_json["tools"][0]["vector_store_ids"][0] in stores.pop()


def open_without_the_list_of_files(page: Page) -> list[Route]:
    """Opens a chat with a file; the request of its list is held back."""
    attach(page, "one.txt")
    say(page, "What hums?")
    wait_answered(page)
    address = page.url
    page.get_by_role("button", name="New chat").click()
    held = hold(page, re.compile(r"/v1/vector_stores/[^/]+/files\?"))
    page.goto(address)
    wait_until(lambda: len(held) == 1, page.wait_for_timeout)
    return held


def test_a_question_waits_for_the_list_of_the_files_of_its_chat(page):
    held = open_without_the_list_of_files(page)
    say(page, "What hums now?")
    page.wait_for_timeout(300)
    with page.expect_request("**/v1/chat/completions") as asked:
        held[0].continue_()

    assert asked.value.post_data_json["tools"][0]["type"] == "file_search"


def searched_stores(request: Request) -> list[str]:
    """The vector stores that a chat's request searches."""
    tools = request.post_data_json.get("tools", [])
    return [id for one in tools for id in one.get("vector_store_ids", [])]


def test_an_answer_is_generated_again_with_the_files_of_a_chat_that_has_just_been_opened(page):
    held = open_without_the_list_of_files(page)
    page.get_by_role("button", name="Answer again").click()
    page.wait_for_timeout(300)
    with page.expect_request("**/v1/chat/completions") as sent:
        held[0].continue_()

    assert len(searched_stores(sent.value)) == 1
    wait_answered(page)


@pytest.mark.parametrize("when_opened", ["while it waits", "later"])
def test_a_question_waits_for_its_files_after_its_chat_is_left(page, when_opened):
    question = f"What hums in the file opened {when_opened}?"
    held = hold(page, UPLOADS)
    attach(page, "late.txt")
    say(page, question)
    wait_until(lambda: len(held) == 1, page.wait_for_timeout)
    page.get_by_role("button", name="New chat").click()
    link = page.locator("#chats a", has_text=question)
    if when_opened == "while it waits":
        link.click()
        expect(page.locator("article.question p")).to_have_text(question)
    with page.expect_request("**/v1/chat/completions") as sent:
        held[0].continue_()

    assert len(searched_stores(sent.value)) == 1
    link.click()
    wait_answered(page)
    expect(page.get_by_label("Attached files").locator("li")).to_have_text(["late.txt"])


def test_a_failed_question_of_a_chat_that_was_left_is_sent_again_with_its_files(
    browser, library_server
):
    with tab(browser, library_server.address, "503") as page:
        page.goto("/")
        expect(page.get_by_role("button", name="Attach files")).to_be_visible()
        attach(page, "again.txt")
        page.get_by_label("System prompt").evaluate("(field) => (field.value = 'You are brief.')")
        held = hold(page, "**/v1/chat/completions")
        say(page, "What hums again?")
        wait_until(lambda: len(held) == 1, page.wait_for_timeout)
        page.get_by_role("button", name="New chat").click()
        page.get_by_label("System prompt").evaluate("(field) => (field.value = 'You are long.')")
        page.get_by_role("link", name="Status").click()
        held[0].fulfill(status=503, json={"error": {"message": "Busy today."}})
        page.go_back()
        with page.expect_request("**/v1/chat/completions") as sent:
            page.locator("#chats a", has_text="What hums again?").click()
        wait_answered(page)

        first = sent.value.post_data_json["messages"][0]
        assert (first["role"], first["content"]) == ("system", "You are brief.")
        assert len(searched_stores(sent.value)) == 1


def test_files_of_a_new_chat_are_there_after_a_look_at_the_status(page):
    attach(page, "kept.txt")
    chips = page.locator("#attachments li:not(.is-waiting)")
    expect(chips).to_have_text(["kept.txt"])
    page.get_by_role("link", name="Status").click()
    expect(page.locator("#status-view")).to_be_visible()
    page.go_back()
    expect(page.locator("#greeting")).to_be_visible()

    expect(chips).to_have_text(["kept.txt"])
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "Is it searched?")
    assert len(searched_stores(asked.value)) == 1
    wait_answered(page)


def test_files_of_a_chat_that_was_left_are_not_shown_with_another(page):
    attach(page, "slow.txt")
    say(page, "What hums?")
    wait_answered(page)
    listing = re.compile(r"/v1/vector_stores/[^/]+/files\?")
    held = hold(page, listing)
    with page.expect_request(listing):
        page.reload()
    page.get_by_role("button", name="New chat").click()
    with page.expect_response(re.compile("/v1/files/file-")):
        held[0].continue_()
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which the page is drawn

    expect(page.get_by_label("Attached files")).to_be_hidden()


def test_a_file_is_not_polled_any_more_once_its_chat_is_left(page):
    page.clock.install()
    asked: list[str] = []

    def is_never_ready(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json={"status": "in_progress"})

    page.route(JOINS, is_never_ready)
    page.route(STATES, is_never_ready)
    with page.expect_request(JOINS):
        attach(page, "long.txt")
    with page.expect_response(STATES):
        page.clock.run_for(2000)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_label("Attached files")).to_be_hidden()
    before = len(asked)
    for _ in range(5):
        page.clock.run_for(10_000)
        page.evaluate("fetch('ping').then((answer) => answer.text())")

    assert len(asked) == before


def test_a_file_that_cannot_be_read_is_deleted(page):
    failed = {"status": "failed", "last_error": {"message": "It has no text."}}
    page.route(JOINS, lambda route: route.fulfill(json=failed))
    with page.expect_response(lambda one: one.request.method == "DELETE") as deleted:
        attach(page, "blank.txt")

    assert deleted.value.ok
    expect(page.get_by_role("alert")).to_have_text("blank.txt cannot be read: It has no text.")
    expect(page.get_by_label("Attached files")).to_be_hidden()


def test_files_of_a_chat_stay_though_one_is_deleted_while_they_are_listed(browser, library_server):
    with tab(browser, library_server.address, "404") as page:
        page.goto("/")
        expect(page.get_by_role("button", name="Attach files")).to_be_visible()
        attach(page, "one.txt", "two.txt")
        chips = page.locator("#attachments li:not(.is-waiting)")
        expect(chips).to_have_count(2)
        say(page, "What hums in both?")
        wait_answered(page)
        held = hold(page, re.compile(r"/v1/files/file-[^/]*$"), count=2)
        page.reload()
        wait_until(lambda: len(held) == 2, page.wait_for_timeout)
        assert page.request.delete(held[0].request.url).ok
        for route in held:
            route.continue_()

        expect(chips).to_have_count(1)
        with page.expect_request("**/v1/chat/completions") as asked:
            say(page, "What hums in the other one?")
        assert len(searched_stores(asked.value)) == 1
        wait_answered(page)


def test_a_file_that_cannot_be_deleted_stays_attached(browser, library_server):
    with tab(browser, library_server.address, "ERR_FAILED") as page:
        page.goto("/")
        expect(page.get_by_role("button", name="Attach files")).to_be_visible()
        attach(page, "stays.txt")
        chips = page.locator("#attachments li:not(.is-waiting)")
        expect(chips).to_have_text(["stays.txt"])
        page.route("**/v1/files/*", lambda route: route.abort())
        page.get_by_role("button", name="Remove stays.txt").click()
        expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")

        expect(chips).to_have_text(["stays.txt"])
        page.unroute("**/v1/files/*")
        page.get_by_role("button", name="Remove stays.txt").click()
        expect(chips).to_have_count(0)


@pytest.fixture(scope="module")
def far_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose model, elsewhere, takes images."""
    with scripted_upstream({"": [{"role": "assistant", "content": "I see."}]}) as port:
        upstream = f"http://127.0.0.1:{port}/v1"
        environment = {
            "LLM_BACKEND_MODELS": "none", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": upstream,
        }  # fmt: skip
        with serve(tmp_path_factory.mktemp("far"), environment=environment) as served:
            yield served


@pytest.fixture
def far_page(browser: Browser, far_server: Served) -> Iterator[Page]:
    with tab(browser, far_server.address) as one:
        one.goto("/")
        expect(one.locator("#model")).to_have_value("far")
        yield one


def transparent_noise() -> bytes:
    """A large PNG without any opaque pixel."""
    pixels = np.random.default_rng(1).integers(0, 256, (400, 400, 4), dtype=np.uint8)
    pixels[:, :, 3] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


ATTACH_AND_SEND = """(data) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0)),
    clipboardData = new DataTransfer();
  clipboardData.items.add(new File([bytes], "a.png", { type: "image/png" }));
  const field = document.getElementById("prompt");
  field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, cancelable: true }));
  field.value = "What is this?";
  document.getElementById("composer").requestSubmit();
}"""


def test_a_transparent_image_is_white_and_goes_with_the_question_sent_at_once(far_page):
    with far_page.expect_request("**/v1/chat/completions") as asked:
        far_page.evaluate(ATTACH_AND_SEND, in_base64(transparent_noise()))
    content = asked.value.post_data_json["messages"][0]["content"]
    url = content[0]["image_url"]["url"]
    seen = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))

    assert seen.getpixel((100, 100)) == (255, 255, 255)


def test_a_damaged_image_is_refused_by_its_name(far_page):
    damaged = {"name": "broken.png", "mimeType": "image/png", "buffer": bytes(500_000)}
    far_page.locator("#files").set_input_files([damaged])

    expect(far_page.get_by_role("alert")).to_have_text("broken.png is no image that can be read.")


def test_texts_and_pdfs_go_with_the_message_to_a_model_elsewhere(far_page):
    pdf = {"name": "plan.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4 plan"}
    far_page.locator("#files").set_input_files([text_file("lamp.txt"), pdf])
    attached = far_page.locator("#documents li")
    expect(attached).to_have_text(["lamp.txt", "plan.pdf"])
    with far_page.expect_request("**/v1/chat/completions") as asked:
        say(far_page, "What hums?")
    wait_answered(far_page)
    far_page.reload()
    wait_answered(far_page)
    question = far_page.locator("article.question")
    expect(question.locator("li")).to_have_text(["lamp.txt", "plan.pdf"])
    expect(question.locator("p")).to_have_text("What hums?")
    screenshot(far_page, "documents")
    far_page.get_by_role("button", name="Edit and resend").click()
    far_page.get_by_label("Edited text").fill("Which lamp?")
    with far_page.expect_request("**/v1/chat/completions") as asked_again:
        far_page.keyboard.press("Enter")

    text, file, said = asked.value.post_data_json["messages"][0]["content"]
    assert text == {"type": "text", "text": '<file name="lamp.txt">\nThe lamp hums.\n\n</file>'}
    assert file["file"] == {
        "filename": "plan.pdf",
        "file_data": as_url(b"%PDF-1.4 plan", "application/pdf"),
    }
    assert said == {"type": "text", "text": "What hums?"}
    assert asked_again.value.post_data_json["messages"][0]["content"][:2] == [text, file]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("long.txt", b"a" * 200_001, "long.txt is too large: at most 200 kB."),
        ("song.mp3", b"\xff\xfb\x90", "song.mp3 is neither text nor a PDF."),
        ("table.bin", b"a\0b", "table.bin is neither text nor a PDF."),
    ],
)
def test_a_file_that_cannot_go_with_a_message_is_refused(far_page, name, content, reason):
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    far_page.locator("#files").set_input_files([file])

    expect(far_page.get_by_role("alert")).to_have_text(reason)
    expect(far_page.locator("#documents")).to_be_hidden()


def test_a_text_goes_with_the_message_to_a_local_model_without_embeddings(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        page.get_by_role("button", name="Attach files").wait_for()
        pdf = {"name": "plan.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4"}
        page.locator("#files").set_input_files([pdf])
        refusal = page.get_by_role("alert")
        expect(refusal).to_have_text("plan.pdf: this model takes no PDF files.")
        attach(page, "lamp.txt")
        expect(page.locator("#documents li")).to_have_text(["lamp.txt"])
        with page.expect_request("**/v1/chat/completions") as asked:
            say(page, "Hello!")
        wait_answered(page)
        page.reload()
        wait_answered(page)
        expect(page.locator("article.question li")).to_have_text(["lamp.txt"])

    text, said = asked.value.post_data_json["messages"][0]["content"]
    assert text == {"type": "text", "text": '<file name="lamp.txt">\nThe lamp hums.\n\n</file>'}
    assert said == {"type": "text", "text": "Hello!"}


def test_a_pdf_for_a_model_that_takes_none_is_refused(far_page):
    models = {"id": "far", "object": "model", "created": 1, "owned_by": "far"}
    listed = {"object": "list", "data": [models | {"input_modalities": ["text"]}]}
    far_page.route("**/v1/models", lambda route: route.fulfill(json=listed))
    far_page.reload()
    expect(far_page.locator("#model")).to_have_value("far")
    pdf = {"name": "plan.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4"}
    far_page.locator("#files").set_input_files([pdf])

    expect(far_page.get_by_role("alert")).to_have_text("plan.pdf: this model takes no PDF files.")
