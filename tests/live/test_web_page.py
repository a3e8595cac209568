"""The chat page in a real browser, over the served built-in model."""

import json
import re
import subprocess
import sys
from typing import Any

import httpx
import yaml
from playwright.sync_api import Page, Route, expect

from llm_backend.contract import load_document
from tests.broken_streams import scripted_upstream
from tests.browser import screenshot, tab
from tests.engine.gguf_models import write_llama
from tests.engine.projectors import write_eyes
from tests.media_files import as_url, image, in_base64
from tests.serving import WITHOUT_END, serve

EVIL = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\n\n"
    "[a](javascript:document.title='owned') ![b](https://example.org/seen.png)\n\n"
    "<iframe srcdoc='<script>parent.document.title=1</script>'></iframe>\n\n**bold**"
)


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def wait_answered(page: Page, count: int = 1) -> None:
    expect(page.locator("article.answer:not(.is-growing)")).to_have_count(count)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


def go_on(page: Page) -> None:
    """Has the model continue the only answer, and returns once it has."""
    prose = page.locator("article.answer .prose")
    begin = prose.inner_text().strip()
    page.get_by_role("button", name="Go on").click()
    expect(prose).to_have_text(re.compile(re.escape(begin) + r"\s*\S"))
    wait_answered(page)


def test_a_chat_streams_and_is_there_again_after_a_reload(page):
    say(page, "How do I load a real model?")
    wait_answered(page)
    expect(page.locator("#chats a[aria-current]")).to_have_count(1)
    listed = page.locator("#chats a").count()
    say(page, "Hello!")
    wait_answered(page, 2)

    said = page.locator("#transcript").inner_text()
    expect(page.locator("#chats a")).to_have_count(listed)
    expect(page.locator("#speed")).to_contain_text("tokens")
    expect(page.locator("#announcer")).to_contain_text("built-in")  # what a screen reader is told
    screenshot(page, "chat")
    page.reload()
    expect(page.locator("article.answer")).to_have_count(2)
    assert page.locator("#transcript").inner_text() == said
    expect(page.locator("#chats a[aria-current]")).to_have_text("How do I load a real model?")


def test_an_answer_is_shown_while_it_is_written_and_stop_stops_it(endless_page):
    page = endless_page
    page.route("**/v1/chat/completions", without_end)
    say(page, "Hello!")
    growing = page.locator("article.answer.is-growing .prose")
    expect(growing).not_to_be_empty()
    page.get_by_role("link", name="Status").click()
    expect(page.locator(".pill")).to_have_text("Busy")
    assert page.url.endswith("#/status")
    page.go_back()
    page.get_by_role("button", name="Stop").click()

    wait_answered(page)
    expect(page.get_by_text("Cut short")).to_be_visible()
    wait_idle(page)


def without_end(route: Route) -> None:
    """The page's own request; a model of the endless server does not stop by itself."""
    body = route.request.post_data_json
    if route.request.method == "POST":
        body |= WITHOUT_END
        route.continue_(post_data=body)
    else:
        route.continue_()


def wait_idle(page: Page) -> None:
    """Returns once no sequence is running any more."""
    for _ in range(1200):
        told = page.request.get("/metrics").text()
        if 'llm_backend_engine_running{model="builtin"} 0.0' in told:
            return
        page.wait_for_timeout(50)
    raise AssertionError("a stopped answer still has its slot")


def test_an_answer_is_regenerated(page):
    say(page, "Hello!")
    wait_answered(page)
    with page.expect_request(lambda one: one.method == "POST") as asked:
        page.get_by_role("button", name="Answer again").click()
    wait_answered(page)

    assert [one["role"] for one in asked.value.post_data_json["messages"]] == ["user"]
    expect(page.locator("#chats a[aria-current]")).to_have_count(1)


def test_an_edited_earlier_question_begins_a_branch_of_the_chat(page):
    say(page, "How do I load a real model?")
    wait_answered(page)
    say(page, "Hello!")
    wait_answered(page, 2)
    before, there = page.locator("article.answer .prose").last.inner_text(), page.url
    stored = page.locator("#chats a").count()
    pens = page.get_by_role("button", name="Edit and resend")
    pens.last.focus()
    page.keyboard.press("Enter")
    field = page.get_by_label("Edited text")
    expect(field).to_be_focused()
    screenshot(page, "edit")
    page.keyboard.press("Escape")
    expect(pens.last).to_be_focused()
    page.keyboard.press("Enter")
    field.fill("What is 12 plus 30?")
    with page.expect_request(lambda one: one.method == "POST") as asked:
        page.keyboard.press("Enter")
    wait_answered(page, 2)

    roles = [one["role"] for one in asked.value.post_data_json["messages"]]
    assert roles == ["user", "assistant", "user"]
    expect(page.locator("article.question p").last).to_have_text("What is 12 plus 30?")
    expect(page.locator("article.question", has_text="2 of 2")).to_have_count(1)
    expect(page.locator("#chats a")).to_have_count(stored)
    assert page.url == there
    page.reload()
    expect(page.locator("article.question p").last).to_have_text("What is 12 plus 30?")
    screenshot(page, "branches")
    page.get_by_role("button", name="Earlier question").click()
    expect(page.get_by_role("button", name="Later question")).to_be_focused()
    expect(page.locator("article.question p").last).to_have_text("Hello!")
    assert page.locator("article.answer .prose").last.inner_text() == before
    say(page, "What is 1 plus 2?")  # the chat goes on from here, and the other branch stays
    wait_answered(page, 3)
    page.reload()
    wait_answered(page, 3)
    page.get_by_role("button", name="Earlier question").click()  # the last stored is the last
    expect(page.locator("article.question p").last).to_have_text("What is 12 plus 30?")


def test_the_reasoning_effort_that_is_chosen_is_sent(browser, server):
    with tab(browser, server.address, expected_error="ERR_FAILED") as page:
        page.route("**/v1/chat/completions", lambda route: route.abort())
        page.goto("/")
        page.get_by_role("button", name="Options").click()
        page.get_by_text("More parameters").click()
        page.get_by_label("Reasoning effort").select_option("low")
        with page.expect_request("**/v1/chat/completions") as asked:
            say(page, "Hello!")

    assert asked.value.post_data_json["reasoning_effort"] == "low"


def test_chosen_options_are_in_the_request(page):
    page.get_by_role("button", name="Options").click()
    page.get_by_label("System prompt").fill("You speak of trains.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_text("More parameters").click()
    page.get_by_label("Top p").fill("0.9")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Stop at").fill("STOP\nEND")
    page.get_by_label("Model", exact=True).select_option("gpt-3.5-turbo")
    with page.expect_request(lambda one: one.method == "POST") as asked:
        say(page, "Hello!")
    wait_answered(page)

    body = asked.value.post_data_json
    assert body["model"] == "gpt-3.5-turbo"
    assert (body["temperature"], body["top_p"], body["seed"]) == (0.3, 0.9, 7)
    assert body["stop"] == ["STOP", "END"]
    assert not {"max_completion_tokens", "reasoning_effort"} & body.keys()
    assert body["store"] is True
    assert body["messages"][0] == {"role": "system", "content": "You speak of trains."}
    expect(page.locator("#chats a[aria-current]")).to_have_count(1)  # the first of this title
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="Options").click()
    field = page.get_by_label("System prompt")
    expect(field).to_have_value("")  # it was that chat's
    field.fill("You rhyme.")
    page.get_by_label("Use it for new chats too").check()
    page.locator("#chats a", has_text="Hello!").first.click()
    expect(field).to_have_value("You speak of trains.")
    page.get_by_role("button", name="New chat").click()
    expect(field).to_have_value("You rhyme.")


def test_system_prompt_is_for_new_chats_no_more_when_that_is_unchecked(page):
    page.get_by_role("button", name="Options").click()
    page.get_by_label("System prompt").fill("You are brief.")
    is_default = page.get_by_label("Use it for new chats too")
    is_default.check()
    page.reload()
    expect(page.locator("#system")).to_have_value("You are brief.")
    page.locator("#keep-system").evaluate("box => box.click()")  # Safari focuses no checkbox
    page.reload()
    expect(page.locator("#model")).to_have_value("builtin")

    expect(page.locator("#system")).to_have_value("")


def test_the_temperature_of_a_tab_is_not_changed_by_another_tab(page):
    other = page.context.new_page()
    other.goto("/")
    for one, temperature in ((page, "0.3"), (other, "0.9")):
        one.get_by_role("button", name="Options").click()
        one.get_by_label("Temperature").fill(temperature)
    with page.expect_request(lambda one: one.method == "POST") as asked:
        say(page, "Hello!")
    wait_answered(page)

    assert asked.value.post_data_json["temperature"] == 0.3


def test_starters_are_offered_while_no_draft_could_be_lost(page):
    starters, field = page.locator("#starters"), page.get_by_label("Message")
    expect(starters).to_be_visible()
    field.fill("A draft")
    expect(starters).to_be_hidden()
    field.fill("")
    starters.get_by_role("button", name="What is 12 plus 30?").click()

    wait_answered(page)
    expect(page.locator("article.question p")).to_have_text("What is 12 plus 30?")


def test_an_answer_has_the_format_that_is_chosen(page):
    page.get_by_role("button", name="Options").click()
    page.get_by_text("More parameters").click()
    page.get_by_label("Response format").select_option("JSON by a schema")
    schema = page.get_by_label("JSON schema")
    schema.fill("{")
    say(page, "Hello!")
    expect(page.get_by_role("alert")).to_contain_text("The JSON schema of the options is no JSON.")
    schema.fill('{"enum": ["yes", "no"]}')
    page.get_by_label("Message").press("Enter")
    wait_answered(page)

    expect(page.locator("article.answer .prose")).to_have_text(re.compile(r'^"(yes|no)"\s*$'))
    page.reload()
    page.get_by_role("button", name="Options").click()
    expect(schema).to_have_value('{"enum": ["yes", "no"]}')
    page.get_by_label("Response format").select_option("Text")
    expect(schema).to_be_hidden()


def test_prompts_of_ones_own_are_written_by_their_names(page):
    page.get_by_role("button", name="Options").click()
    page.locator("summary", has_text="Prompts of your own").click()
    for name, text in (("short", "In one sentence:"), ("sum", "What is 12 plus 30?")):
        page.get_by_label("Name", exact=True).fill(name)
        page.get_by_label("Text", exact=True).fill(text)
        page.get_by_role("button", name="Save the prompt").click()
    page.reload()
    field = page.get_by_label("Message")
    field.press_sequentially("/s")
    offered = page.locator("#suggestions li")
    expect(offered).to_have_text(["/short In one sentence:", "/sum What is 12 plus 30?"])
    expect(page.locator("#announcer")).to_contain_text("2 prompts.")
    screenshot(page, "prompts")
    field.press("ArrowDown")
    field.press("Enter")
    expect(field).to_have_value("What is 12 plus 30?")
    expect(page.locator("article")).to_have_count(0)  # the key chose the prompt and sent nothing
    field.press("Enter")
    wait_answered(page)
    field.press_sequentially("/sh")
    field.press("Escape")
    expect(offered).to_have_count(0)
    expect(field).to_have_value("/sh")

    page.get_by_role("button", name="Options").click()
    page.locator("summary", has_text="Prompts of your own").click()
    page.get_by_role("button", name="Delete short").click()
    expect(page.locator("#prompt-list li")).to_have_text(["/sum"])


def test_an_answer_that_is_cut_by_its_limit_goes_on(page):
    page.get_by_role("button", name="Options").click()
    page.get_by_text("More parameters").click()
    limit = page.get_by_label("Max tokens")
    limit.fill("0")
    page.keyboard.press("Escape")
    say(page, "How do I load a real model?")
    expect(page.get_by_role("alert")).to_contain_text("Max tokens: ")
    expect(limit).to_be_focused()
    limit.fill("4")
    screenshot(page, "parameters")
    page.get_by_label("Message").press("Enter")
    wait_answered(page)
    prose = page.locator("article.answer:not(.is-growing) .prose")
    begin = prose.inner_text()
    limit.fill("")
    go_on(page)

    whole = prose.inner_text()
    assert whole.startswith(begin)
    assert len(whole) > len(begin)
    expect(page.get_by_text("Cut short")).to_be_hidden()
    page.reload()
    expect(prose).to_have_text(whole)


def test_a_stored_chat_gets_another_title_and_is_deleted(page):
    say(page, "Hello there!")
    wait_answered(page)
    item = page.locator("#chats li", has_text="Hello there!")
    item.hover()
    item.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Greetings <b>")
    page.keyboard.press("Enter")
    expect(page.locator("#chats a", has_text="Greetings <b>")).to_be_visible()
    page.reload()
    item = page.locator("#chats li", has_text="Greetings <b>")
    item.hover()
    item.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(item).to_have_count(0)
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()


def test_markup_typed_by_a_user_stays_text(page, client, server):
    asked = [
        {"role": "user", "content": EVIL},
        {"role": "assistant", "content": EVIL},
        {"role": "user", "content": "Hello!"},
    ]
    stored = client.chat.completions.create(
        model="builtin", messages=asked, max_tokens=2, metadata={"title": EVIL[:200]}
    )
    foreign = []
    page.on("request", lambda one: one.url.startswith(server.address) or foreign.append(one.url))
    page.goto(f"/#/stored/{stored.id}")

    expect(page.locator("article.question p").first).to_have_text(EVIL)
    answer = page.locator("article.answer").first
    expect(answer).to_contain_text("<img src=x onerror=")
    expect(answer).to_contain_text("<iframe srcdoc=")
    expect(answer.locator("strong")).to_have_text("bold")
    assert answer.locator("img, script, iframe, [onerror]").count() == 0
    assert answer.locator("a[href^='javascript']").count() == 0
    assert page.title() != "owned"
    expect(page.locator("#announcer")).to_be_empty()  # a chat that is opened is not read out
    assert foreign == []


def test_the_keyboard_is_enough(page):
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message field")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Hello!")
    page.keyboard.press("Enter")
    wait_answered(page)
    page.keyboard.press("Alt+KeyN")

    expect(page.get_by_label("Message")).to_be_focused()
    expect(page.locator("article")).to_have_count(0)


def test_the_page_is_dark_by_the_system_or_by_choice_and_fits_a_phone(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Light mode").click()
    page.set_viewport_size({"width": 375, "height": 700})

    assert light != dark
    assert page.evaluate(colour) == light
    page.reload()
    assert page.evaluate(colour) == light
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.get_by_role("button", name="Open the menu").click()
    page.get_by_role("button", name="Dark mode").click()
    screenshot(page, "phone")


def test_a_server_that_needs_a_key_is_given_one_that_ends_with_the_tab(browser, tmp_path):
    keys = {"LLM_BACKEND_API_KEYS": "sk-right", "LLM_BACKEND_MODELS": "none"}
    with (
        serve(tmp_path, environment=keys) as server,
        tab(browser, server.address, expected_error="401") as page,
    ):
        page.goto("/")
        expect(page.get_by_role("alert")).to_contain_text("needs an API key")
        expect(page.locator("#starters")).to_be_hidden()
        field = page.get_by_label("API key")
        expect(field).to_be_focused()
        field.fill("sk-right")
        field.press("Enter")

        expect(page.locator("#notice")).to_be_hidden()
        expect(page.get_by_text("Chats are stored on the server")).to_be_visible()
        expect(page.locator("#greeting-model")).to_contain_text("No model is served yet")
        expect(page.locator("#starters")).to_be_hidden()
        assert page.evaluate("sessionStorage.getItem('llm-backend.api-key')") == "sk-right"
        assert page.evaluate("localStorage.getItem('llm-backend.api-key')") is None


def test_overlays_close_by_escape_or_by_a_click_beside_them(page):
    button = page.get_by_role("button", name="Options")
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.mouse.click(600, 400)):
        button.click()
        expect(page.get_by_label("System prompt")).to_be_focused()
        close()
        expect(page.locator("#options")).to_be_hidden()
        expect(button).to_have_attribute("aria-expanded", "false")
    page.set_viewport_size({"width": 375, "height": 700})
    menu = page.get_by_role("button", name="Open the menu")
    menu.click()
    page.keyboard.press("Escape")

    expect(menu).to_be_focused()
    menu.click()
    page.get_by_role("button", name="Close the menu").click()
    expect(menu).to_be_focused()


def test_menu_of_a_phone_closes_by_the_link_of_what_is_open(page):
    say(page, "Hello!")
    wait_answered(page)
    page.set_viewport_size({"width": 375, "height": 700})
    menu = page.get_by_role("button", name="Open the menu")
    for link in (page.get_by_role("link", name="Hello!"), page.get_by_role("link", name="Status")):
        for _ in range(2):
            menu.click()
            link.click()
            expect(menu).to_have_attribute("aria-expanded", "false")


def test_options_close_when_another_page_is_opened(page):
    page.goto("/#/status")
    page.goto("/#/")
    page.get_by_role("button", name="Options").click()
    expect(page.locator("#options")).to_be_visible()
    page.go_back()
    expect(page.locator("#status-view")).to_be_visible()
    page.go_forward()

    expect(page.locator("#chat-view")).to_be_visible()
    expect(page.locator("#options")).to_be_hidden()


def test_a_link_whose_definition_follows_in_a_stream_becomes_one(page):
    with page.expect_request("**/markdown.js") as module:
        page.reload()
    drawn = page.evaluate(
        """async (module) => {
            const { Markdown } = await import(module);
            const element = document.createElement("div");
            const markdown = new Markdown(element);
            const text = "See [the *lamp*][1].\\n\\nIt hums.\\n\\n[1]: https://example.org/lamp";
            for (let end = 1; end <= text.length; end += 1) markdown.draw(text.slice(0, end));
            return [...element.querySelectorAll("a")].map((link) => [link.href, link.innerHTML]);
        }""",
        module.value.url,
    )

    assert drawn == [["https://example.org/lamp", "the <em>lamp</em>"]]


def test_scrolling_up_shows_a_button_to_the_end(page):
    answered_with(page, "Line\n\n" * 80)
    say(page, "Hello!")
    wait_answered(page)
    button = page.get_by_role("button", name="To the end of the chat")
    expect(button).to_be_hidden()
    page.locator("#scroller").evaluate("one => one.scrollTop = 0")
    button.click()

    expect(button).to_be_hidden()
    expect(page.get_by_label("Message")).to_be_focused()


def answered_with(page: Page, text: str) -> None:
    """From now on the model's answer is this."""
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": text}}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=body, content_type="text/event-stream"),
    )


def test_code_is_coloured_by_what_it_is_and_stays_the_text_that_it_was(page):
    code = "def add(one):  # <b>sums</b>\n    return f'{one}' + 12"
    answered_with(page, f"```python\n{code}\n```")
    say(page, "Hello!")
    wait_answered(page)

    block = page.locator("figure.code code")
    assert block.text_content().strip() == code
    kinds = ("comment", "string", "number", "keyword")
    assert {kind: block.locator(f".{kind}").all_text_contents() for kind in kinds} == {
        "comment": ["# <b>sums</b>"], "string": ["'{one}'"], "number": ["12"],
        "keyword": ["def", "return"],
    }  # fmt: skip


def paste(page: Page, file: dict[str, Any]) -> None:
    """Pastes an image that some program has copied."""
    page.get_by_label("Message").evaluate(
        """(field, { name, type, data }) => {
            const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], name, { type }));
            field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, cancelable: true }));
        }""",
        {
            "name": file["name"],
            "type": file["mimeType"],
            "data": in_base64(file["buffer"]),
        },
    )


def test_swagger_ui_shows_every_operation(browser, server):
    with tab(browser, server.address) as page:
        page.goto("/docs")
        expect(page.locator(".opblock-tag", has_text="Embeddings")).to_be_visible()
        shown = page.evaluate("window.ui.specSelectors.operations().size")
        page.locator(".opblock-tag", has_text="Embeddings").click()

        expect(page.get_by_text("Turn texts into vectors")).to_be_visible()
        assert shown == len(load_document().operations)


def test_the_status_is_shown_live(endless_page, endless_client):
    page = endless_page
    page.get_by_role("link", name="Status").click()
    expect(page.locator(".pill")).to_have_text("Idle")
    row = page.get_by_role("region", name="Models").get_by_role("row", name="builtin")
    expect(row).to_contain_text("0 of 8")
    with endless_client.chat.completions.create(
        model="builtin", messages=[{"role": "user", "content": "Hello!"}], stream=True,
        extra_body=WITHOUT_END,
    ) as chat:  # fmt: skip
        next(iter(chat))
        expect(page.locator(".pill")).to_have_text("Busy")
        expect(row).to_contain_text("1 of 8")
        expect(page.locator(".figures .wide dd").first).not_to_have_text("0.0")
        screenshot(page, "status")

    expect(page.locator(".pill")).to_have_text("Idle")


def test_operations_are_found_by_search_words(page):
    page.get_by_role("link", name="Operations").click()
    field = page.get_by_role("searchbox", name="Find an operation")
    field.fill("create chat completion")
    screenshot(page, "operations")

    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text("Here")
    page.get_by_role("link", name="llm-backend").click()
    expect(page.get_by_label("Message")).to_be_visible()


def test_personalities_are_chosen_beside_the_model(browser, tmp_path):
    config = tmp_path / "models.yaml"
    config.write_text(
        "models: [{path: builtin, aliases: [gpt-4], personalities: {poet: You sing.}}]"
    )
    with (
        serve(tmp_path, "--config", str(config)) as server,
        tab(browser, server.address) as page,
    ):
        page.goto("/")
        page.get_by_label("Model", exact=True).select_option("gpt-4")
        page.get_by_label("Personality").select_option("poet")
        with page.expect_request(lambda one: one.method == "POST") as asked:
            say(page, "Hello!")
        wait_answered(page)
        assert asked.value.post_data_json["model"] == "gpt-4:poet"
        page.reload()

        expect(page.get_by_label("Personality")).to_have_value("poet")


def test_texts_of_attached_files_reach_the_model(browser, library_server):
    note = {"name": "lamp.md", "mimeType": "text/markdown", "buffer": b"The lamp hums in B flat.\n"}
    with tab(browser, library_server.address) as page:
        page.goto("/")
        expect(page.get_by_role("button", name="Attach files")).to_be_visible()
        page.locator("#files").set_input_files([note])
        expect(page.get_by_label("Attached files")).to_contain_text("lamp.md")
        expect(page.get_by_label("Model", exact=True).locator("option")).to_have_text(["builtin"])
        with page.expect_request("**/v1/chat/completions") as asked:
            say(page, "Which note does the lamp hum?")
        wait_answered(page)
        screenshot(page, "files")

        assert asked.value.post_data_json["tools"][0]["type"] == "file_search"
        page.get_by_text("Read 1 passage of the files").click()
        expect(page.get_by_text("The lamp hums in B flat.")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Attached files")).to_contain_text("lamp.md")
        expect(page.get_by_text("Read 1 passage of the files")).to_be_visible()

        page.get_by_role("button", name="Edit and resend").click()
        page.get_by_label("Edited text").fill("What does the lamp do?")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Earlier question")).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="Earlier question")).to_be_visible()
        expect(page.get_by_label("Attached files")).to_contain_text("lamp.md")
        page.get_by_role("button", name="Remove lamp.md").click()
        expect(page.get_by_label("Attached files")).to_be_hidden()


def test_a_model_is_unloaded_and_loaded_by_a_button_with_a_key_that_may(browser, tmp_path):
    command = [sys.executable, "-m", "llm_backend", "keys", "create", "laptop"]
    created = subprocess.run(
        [*command, "--data-dir", str(tmp_path)], check=True, capture_output=True, text=True
    )
    keys = {"LLM_BACKEND_API_KEYS": "sk-operator"}
    with (
        serve(tmp_path, environment=keys) as server,
        tab(browser, server.address, expected_error="40[13]") as page,
    ):
        use_key(page, created.stdout.strip())
        row = page.locator("tbody tr", has_text="builtin")
        row.get_by_role("button", name="Unload").click()
        expect(page.get_by_role("alert")).to_contain_text("builtin was not unloaded: ")
        screenshot(page, "member")
        use_key(page, "sk-operator")
        row.get_by_role("button", name="Unload").click()
        expect(row).to_contain_text("unloaded")
        row.get_by_role("button", name="Load builtin", exact=True).click()

        expect(row).to_contain_text("ready")
        expect(row).to_contain_text("0 of 8")


def use_key(page: Page, key: str) -> None:
    """Opens the status page with this key."""
    page.goto("/docs")  # a page of the same origin
    page.evaluate("key => sessionStorage.setItem('llm-backend.api-key', key)", key)
    page.goto("/#/status")


def test_a_question_that_gets_no_answer_is_there_to_be_sent_again(browser, server):
    with tab(browser, server.address, expected_error="ERR_FAILED") as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        page.route("**/v1/chat/completions", lambda route: route.abort())
        say(page, "Hello!")

        expect(page.get_by_role("alert").locator("p")).to_have_text("The server cannot be reached.")
        expect(page.get_by_label("Message")).to_have_value("Hello!")
        expect(page.locator("article")).to_have_count(0)
        expect(page.locator("#greeting")).to_be_visible()


def test_chats_of_other_clients_are_opened_and_left_as_they_are(page, client):
    theirs = client.chat.completions.create(
        model="builtin", messages=[{"role": "user", "content": "Hello!"}], max_tokens=2,
        metadata={"title": "Theirs", "conversation": "c1"},
    )  # fmt: skip
    page.get_by_label("Chats of other clients too").check()
    page.locator("#chats a", has_text="Theirs").click()
    expect(page.locator("article.answer")).to_have_count(1)
    say(page, "Who are you?")
    wait_answered(page, 2)

    expect(page.locator("#chats a", has_text="Theirs")).to_have_count(2)
    assert client.chat.completions.retrieve(theirs.id).metadata["conversation"] == "c1"


def test_chats_without_a_title_are_listed_by_what_they_have(browser, tmp_path):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    calls = [{"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}]
    answers = {"tool": calls, "": [{"role": "assistant", "content": "First line\nand another"}]}
    environment = {"LLM_BACKEND_MODELS": "none", "OPENAI_API_KEY": "k"}
    with scripted_upstream(answers) as port:
        environment["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
        with serve(tmp_path, environment=environment) as served:
            for content in ("a tool", "a text"):
                messages = [{"role": "user", "content": content}]
                body = {"model": "far", "messages": messages, "store": True, "stream": True}
                httpx.post(f"{served.base_url}/chat/completions", json=body).raise_for_status()
            silent = {"model": "far", "messages": messages, "answer": ""}
            httpx.post(f"{served.base_url}/chat/stored", json=silent).raise_for_status()
            with tab(browser, served.address) as page:
                page.goto("/")
                page.get_by_label("Chats of other clients too").check()
                titles = page.locator("#chats a")
                expect(titles).to_have_count(3)

                time = re.compile(r"^Chat of \d+:\d\d\s[AP]M$")
                expect(titles.filter(has_text=re.compile("^First line$"))).to_have_count(1)
                expect(titles.filter(has_text=re.compile("^weather$"))).to_have_count(1)
                expect(titles.filter(has_text=time)).to_have_count(1)
                titles.filter(has_text=time).click()
                expect(page.locator("#heading")).to_have_text(time)


def test_folder_of_the_option_is_served_in_place_of_the_chat_page(browser, tmp_path):
    folder = tmp_path / "ui"
    (folder / "parts").mkdir(parents=True)
    (folder / "index.html").write_text('<title>Ours</title><script src="parts/ours.js"></script>')
    (folder / "parts" / "ours.js").write_text(
        "fetch('v1/models').then((one) => one.json())"
        ".then(({ data }) => document.body.append(data[0].id))"
    )
    (folder / ".env").write_text("SECRET=1")
    with (
        serve(tmp_path / "data", "--web-ui", str(folder)) as served,
        tab(browser, served.address) as page,
    ):
        page.goto("/")
        expect(page).to_have_title("Ours")
        expect(page.locator("body")).to_have_text("builtin")
        hidden = page.request.get("/.env")
        docs = page.request.get("/docs")

    assert (hidden.status, docs.status) == (404, 200)


def test_an_image_goes_with_a_question_to_a_model_that_sees(browser, tmp_path):
    config = tmp_path / "config.yaml"
    entry = {
        "path": str(write_llama(tmp_path / "tiny.gguf")),
        "mmproj": str(write_eyes(tmp_path / "eyes.gguf")),
        "id": "eyes",
        "context_tokens": 2048,
        "defaults": {"temperature": 0, "max_tokens": 4},
    }
    config.write_text(yaml.safe_dump({"models": [entry, {"path": "builtin"}]}))
    files = [
        {"name": "seen.png", "mimeType": "image/png", "buffer": image(1)},
        {"name": "other.png", "mimeType": "image/png", "buffer": image(2)},
    ]
    with (
        serve(tmp_path / "data", "--config", str(config)) as served,
        tab(browser, served.address) as page,
    ):
        page.goto("/")
        page.get_by_label("Model", exact=True).select_option("eyes")
        page.locator("#files").set_input_files(files[:1])
        paste(page, files[1])
        images = page.get_by_role("list", name="Attached images").get_by_role("img")
        expect(images).to_have_count(2)
        page.get_by_role("button", name="Remove image 2").click()
        with page.expect_request(lambda one: one.method == "POST") as asked:
            say(page, "What is this?")
        wait_answered(page)
        screenshot(page, "image")
        page.reload()
        shown = page.locator("article.question img")
        expect(shown).to_have_count(1)
        assert shown.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
        expect(page.locator("article.question p")).to_have_text("What is this?")
        page.get_by_label("Model", exact=True).select_option("builtin")
        page.locator("#files").set_input_files(files[:1])
        unseen = page.get_by_text("seen.png is no image that the model can see.")
        expect(unseen).to_be_visible()

    seen, text = asked.value.post_data_json["messages"][0]["content"]
    assert (seen["type"], seen["image_url"]["url"]) == ("image_url", as_url(image(1)))
    assert text == {"type": "text", "text": "What is this?"}
