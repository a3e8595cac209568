"""Stored chats on the chat page: saved as files, opened again, deleted together, answered anew."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Browser, Error, Page, Request, Route, expect

from llm_backend.builtin import BUILTIN_PATH
from tests.browser import ENDED_MEANWHILE, screenshot, tab
from tests.live.test_web_page import go_on, say, wait_answered, without_end
from tests.patience import wait_until
from tests.serving import serve

ROLES = ["user", "assistant"]


def saved(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return download.value.path().read_text()


def test_a_chat_is_saved_as_files_and_opened_again(page, tmp_path):
    page.get_by_role("button", name="Options").click()
    page.get_by_label("System prompt").fill("You are brief.")
    say(page, "What is 12 plus 30?")
    wait_answered(page)
    answer = page.locator("article.answer .prose")
    text = answer.inner_text()

    assert saved(page, "Save Markdown") == (
        f"# What is 12 plus 30?\n\n## You\n\nWhat is 12 plus 30?\n\n## builtin\n\n{text}\n"
    )
    file = tmp_path / "chat.json"
    file.write_text(saved(page, "Save JSON"))
    chat = json.loads(file.read_text())
    assert chat["messages"][1] == {"role": "assistant", "content": text}
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_label("System prompt")).to_have_value("")
    page.locator("#chat-file").set_input_files(file)
    expect(answer).to_have_text(text)
    expect(page.get_by_role("alert")).to_have_text("This chat is stored with its next message.")
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "Hello!")
    roles = [one["role"] for one in asked.value.post_data_json["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    wait_answered(page, 2)
    expect(page.locator("#chats a[aria-current]")).to_have_text("What is 12 plus 30?")


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"messages": [{"role": "system"}]}'])
def test_a_file_that_is_no_chat_is_refused(page, tmp_path, content):
    file: Path = tmp_path / "other.json"
    file.write_text(content)
    page.locator("#chat-file").set_input_files(file)

    expect(page.get_by_role("alert")).to_have_text("other.json is no chat that was saved as JSON.")


def chat_file(name: str, chat: object) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/json", "buffer": json.dumps(chat).encode()}


def test_a_file_of_several_chats_offers_each(page):
    chats = [
        {"title": title, "messages": [{"role": "user", "content": f"Hello {title}!"}]}
        for title in ("one", "two")
    ]
    page.get_by_role("button", name="Options").click()
    page.locator("#chat-file").set_input_files(chat_file("chats.json", {"chats": chats}))
    offered = page.get_by_role("list", name="Chats of the file").get_by_role("button")
    expect(offered).to_have_text(["one", "two"])
    screenshot(page, "chats-of-a-file")
    offered.last.click()

    expect(page.locator("article.question p")).to_have_text("Hello two!")
    page.get_by_role("button", name="Options").click()
    offered.first.click()
    expect(page.locator("article.question p")).to_have_text("Hello one!")


def test_chat_of_a_file_with_a_long_title_goes_on(page):
    said = [{"role": "user", "content": "Hello!"}]
    chat = {"title": "long " * 200, "messages": said}
    page.locator("#chat-file").set_input_files(chat_file("a.json", chat))
    expect(page.locator("article.question")).to_have_count(1)
    say(page, "And now?")
    wait_answered(page)

    expect(page.locator("article.question")).to_have_count(2)
    expect(page.locator("#chats a[aria-current]")).to_contain_text("long long")


def test_a_malformed_address_is_an_alert_and_the_page_works(page):
    page.goto("/#/chat/%E0")
    expect(page.get_by_role("alert")).to_have_text("This address names no chat.")
    say(page, "Hello!")
    wait_answered(page)


def test_the_model_of_a_chat_stays_when_the_lists_are_loaded_again(page):
    said = [{"role": "user", "content": "Hello!"}]
    chat = {"title": "Mine", "model": "gpt-3.5-turbo", "messages": said}
    page.evaluate(f"localStorage.setItem('{STORAGE}model', 'builtin')")
    page.reload()
    expect(page.locator("#model")).to_have_value("builtin")
    page.locator("#chat-file").set_input_files(chat_file("a.json", chat))
    expect(page.locator("#model")).to_have_value("gpt-3.5-turbo")
    page.get_by_role("button", name="Options").click()
    with page.expect_response("**/v1/models"):
        page.get_by_label("Remember it on this device").check()
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which the page is drawn

    expect(page.locator("#model")).to_have_value("gpt-3.5-turbo")


def test_the_personality_of_a_chat_is_kept_when_the_chat_is_opened(browser, tmp_path):
    small, config = tmp_path / "small.gguf", tmp_path / "models.yaml"
    small.symlink_to(BUILTIN_PATH)
    entries = [{"path": "builtin", "personalities": {"poet": "You sing."}}, {"path": str(small)}]
    config.write_text(json.dumps({"models": entries}))  # which is YAML
    said = [{"role": "user", "content": "Hello!"}]
    chat = {"title": "Sung", "model": "builtin:poet", "messages": said}
    with serve(tmp_path, "--config", str(config)) as served, tab(browser, served.address) as page:
        page.goto("/")
        model, personality = page.locator("#model"), page.locator("#personality")
        model.select_option("small")
        page.locator("#chat-file").set_input_files(chat_file("a.json", chat))
        expect(page.locator("article.question")).to_have_count(1)
        expect(model).to_have_value("builtin")
        expect(personality).to_have_value("poet")
        with page.expect_request(lambda one: one.method == "POST") as asked:
            say(page, "And now?")
        wait_answered(page)
        page.get_by_role("button", name="New chat").click()
        page.reload()

        expect(model).to_have_value("small")  # which the user chose
    assert asked.value.post_data_json["model"] == "builtin:poet"


STORAGE = "llm-backend."


@pytest.mark.parametrize("value", ["x", "3", '["x"]', '{"a": 1}'])
def test_prompts_that_are_no_prompts_of_the_page_are_left_out(page, value):
    page.evaluate(f"(value) => localStorage.setItem('{STORAGE}prompts', value)", value)
    page.evaluate("(value) => localStorage.setItem('prompts', value)", value)  # of another program
    page.reload()

    expect(page.locator("#model")).to_have_value("builtin")
    expect(page.locator("#prompt-list li")).to_have_count(0)


def save_prompt(page: Page, name: str) -> None:
    page.get_by_role("button", name="Options").click()
    page.locator("summary", has_text="Prompts of your own").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Text", exact=True).fill("In one sentence:")
    page.get_by_role("button", name="Save the prompt").click()


def test_prompts_of_two_tabs_are_all_kept(page):
    other = page.context.new_page()
    other.goto("/")
    save_prompt(page, "one")
    expect(other.locator("#prompt-list li")).to_have_text(["/one"])
    save_prompt(other, "two")

    expect(page.locator("#prompt-list li")).to_have_text(["/one", "/two"])


def test_the_focus_stays_at_a_chat_that_was_renamed_and_goes_where_one_clicks(page):
    say(page, "Hello Ivan!")
    wait_answered(page)
    item = page.locator("#chats li", has_text="Hello Ivan!")
    item.hover()
    item.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Ivan")
    page.keyboard.press("Enter")
    expect(page.locator("#chats a", has_text="Ivan")).to_be_focused()
    page.locator("#chats li", has_text="Ivan").get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Ivan the second")
    page.get_by_label("Message").click()

    expect(page.locator("#chats a", has_text="Ivan the second")).to_be_visible()
    expect(page.get_by_label("Message")).to_be_focused()


def test_a_title_that_is_being_edited_stays_so_when_the_list_changes(page):
    say(page, "Hello Eve!")
    wait_answered(page)
    page.get_by_role("button", name="New chat").click()
    held: list[Route] = []
    page.route("**/v1/chat/completions", lambda route: held.append(route))
    with page.expect_request("**/v1/chat/completions"):
        say(page, "Hello Adam!")
    item = page.locator("#chats li", has_text="Hello Eve!")
    item.hover()
    item.get_by_role("button", name="Rename").click()
    title = page.get_by_label("Title")
    title.fill("Eve")
    held[0].continue_()
    wait_answered(page)
    expect(title).to_be_focused()
    expect(title).to_have_value("Eve")
    page.keyboard.press("Enter")

    expect(page.locator("#chats a", has_text="Eve")).to_have_text("Eve")
    expect(page.locator("#chats a", has_text="Hello Adam!")).to_be_visible()


def test_a_list_of_before_a_chat_was_renamed_does_not_bring_its_title_back(page):
    say(page, "Hello Noah!")
    wait_answered(page)
    item = page.locator("#chats li", has_text="Hello Noah!")
    expect(item.locator("button")).to_have_count(2)  # it is listed as stored
    held: list[tuple[Route, APIResponse]] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    page.route(re.compile(r"/v1/chat/completions\?"), hold_first)
    store_chat(page, "Stored meanwhile")
    show_anew(page)
    wait_until(lambda: held, page.wait_for_timeout)
    item.hover()
    item.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Noah")
    with page.expect_response(lambda one: one.request.method == "POST"):
        page.keyboard.press("Enter")
    expect(page.locator("#chats a", has_text="Noah")).to_have_text("Noah")
    with suppress(Error):  # the page has cancelled the request
        held[0][0].fulfill(response=held[0][1])
    page.wait_for_timeout(200)  # in which it would be drawn

    expect(page.locator("#chats a", has_text="Hello Noah!")).to_have_count(0)
    expect(page.locator("#chats a", has_text="Noah")).to_have_text("Noah")


def test_a_question_waits_for_the_list_of_models(page):
    held: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.reload()
    say(page, "Hello!")
    wait_until(lambda: held, page.wait_for_timeout)
    expect(page.locator("article")).to_have_count(0)
    held[0].continue_()

    wait_answered(page)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_list_that_is_drawn_again_leaves_the_focus_where_it_is(page):
    say(page, "Hello Dora!")
    wait_answered(page)
    item = page.locator("#chats li", has=page.get_by_role("link", name="Hello Dora!"))
    expect(item.locator("button")).to_have_count(2)  # it is listed as stored
    item.get_by_role("link").focus()
    page.keyboard.press("ArrowRight")
    rename = item.get_by_role("button", name="Rename")
    expect(rename).to_be_focused()
    rename.evaluate("button => (button.dataset.drawn = 'before')")
    store_chat(page, "Stored beside it")
    show_anew(page)

    expect(page.get_by_role("link", name="Stored beside it")).to_be_visible()
    expect(page.locator("[data-drawn]")).to_have_count(0)
    expect(rename).to_be_focused()


def store_chat(page: Page, title: str) -> None:
    """Stores a chat as another tab does."""
    metadata = {"client": "web", "conversation": title.replace(" ", ""), "title": title}
    said = [{"role": "user", "content": "Hello!"}]
    body = {"model": "builtin", "messages": said, "store": True, "metadata": metadata}
    assert page.request.post("/v1/chat/completions", data=body).ok


def show_anew(page: Page) -> None:
    """Has the page load its list of chats."""
    page.evaluate("document.getElementById('all-chats').dispatchEvent(new Event('change'))")


def decide_by_keyboard(page: Page, decision: str) -> None:
    """Has the chat whose link has the focus be deleted, and answers the question of the page."""
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    page.get_by_role("dialog").get_by_role("button", name=decision).press("Enter")


def test_the_focus_stays_at_a_chat_that_is_kept(page):
    store_chat(page, "Stored before")
    show_anew(page)
    expect(page.get_by_role("link", name="Stored before")).to_be_visible()
    page.get_by_label("Search chats").press("ArrowDown")
    expect(page.get_by_role("link", name="Stored before")).to_be_focused()
    decide_by_keyboard(page, "Keep it")

    expect(page.get_by_role("button", name="Delete Stored before")).to_be_focused()


def test_the_focus_goes_to_the_next_chat_when_one_is_deleted_by_keyboard(page):
    for title in ("Stored first", "Stored second", "Stored third"):
        store_chat(page, title)
    show_anew(page)
    links = page.locator("#chats li > a")
    expect(links).to_have_count(3)
    first, _, third = links.all_inner_texts()
    page.get_by_label("Search chats").press("ArrowDown")
    expect(links.first).to_be_focused()
    page.keyboard.press("ArrowDown")
    decide_by_keyboard(page, "Delete")
    expect(links).to_have_text([first, third])
    expect(links.last).to_be_focused()
    expect(page.locator("#chats a[tabindex='0']")).to_have_text(third)
    decide_by_keyboard(page, "Delete")
    expect(links).to_have_text([first])
    expect(links).to_be_focused()
    decide_by_keyboard(page, "Delete")

    expect(links).to_have_count(0)
    expect(page.get_by_label("Message")).to_be_focused()


def test_a_letter_of_another_keyboard_opens_no_chat(page):
    say(page, "Hello!")
    wait_answered(page)
    page.keyboard.press("Control+Alt+KeyN")  # AltGr on Windows
    expect(page.locator("article.question")).to_have_count(1)
    page.keyboard.press("Alt+KeyN")
    expect(page.locator("article.question")).to_have_count(0)


def test_several_chats_are_deleted_together(page):
    for text in ("Hello one!", "Hello two!", "Hello three!"):
        page.get_by_role("button", name="New chat").click()
        say(page, text)
        wait_answered(page)
        expect(page.locator("#chats a[aria-current]")).to_have_text(text)
    page.get_by_role("button", name="Select chats").click()
    chosen = page.get_by_role("group", name="Selected chats")
    chosen.get_by_role("button", name="Select all").click()
    expect(page.get_by_label("Select Hello two!")).to_be_checked()
    page.get_by_role("button", name="Select chats").click()
    page.get_by_role("button", name="Select chats").click()
    page.get_by_label("Select Hello one!").check()
    page.get_by_label("Select Hello three!").check()
    heights = chosen.get_by_role("button").evaluate_all(
        "(all) => all.map((one) => one.offsetHeight)"
    )
    assert max(heights) < 36, "a label is broken into lines"
    screenshot(page, "select")
    chats = json.loads(saved(page, "Save 2"))["chats"]
    assert [one["title"] for one in chats] == ["Hello three!", "Hello one!"]
    assert [[said["role"] for said in one["messages"]] for one in chats] == [ROLES, ROLES]
    page.get_by_role("button", name="Delete 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.locator("#chats a", has_text="Hello one!")).to_have_count(0)
    expect(page.locator("#chats a", has_text="Hello three!")).to_have_count(0)
    expect(page.locator("#chats a", has_text="Hello two!")).to_have_count(1)
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    expect(page.get_by_role("button", name="Delete 2")).to_be_hidden()


def test_selected_chats_stay_selected_when_the_list_changes(page):
    say(page, "Hello selected!")
    wait_answered(page)
    page.get_by_role("button", name="Select chats").click()
    selected = page.get_by_label("Select Hello selected!")
    selected.check()
    selected.evaluate("box => (box.dataset.drawn = 'before')")
    say(page, "Hello again!")  # in the same chat, whose newest stored answer is another one then
    wait_answered(page, 2)

    expect(page.locator("[data-drawn]")).to_have_count(0)
    expect(selected).to_be_checked()
    page.get_by_role("button", name="New chat").click()
    say(page, "Hello later!")
    expect(page.get_by_label("Select Hello later!")).to_be_visible()
    expect(selected).to_be_checked()
    expect(page.get_by_role("button", name="Delete 1")).to_be_enabled()


def test_answers_to_the_same_question_are_kept_and_the_chat_goes_on_from_each(page):
    page.get_by_role("button", name="Options").click()
    page.get_by_text("More parameters").click()
    page.get_by_label("Max tokens").fill("2")
    say(page, "How do I load a real model?")
    wait_answered(page)
    prose = page.locator("article.answer .prose")
    short = prose.inner_text()
    page.get_by_label("Max tokens").fill("")
    page.get_by_role("button", name="Answer again").click()
    expect(page.get_by_text("2 of 2")).to_be_visible()
    assert prose.inner_text() != short
    page.reload()
    expect(page.get_by_text("2 of 2")).to_be_visible()
    screenshot(page, "variants")
    page.get_by_role("button", name="Earlier answer").click()
    expect(page.get_by_role("button", name="Later answer")).to_be_focused()
    expect(prose).to_have_text(short)
    with page.expect_request(lambda one: one.method == "DELETE"):
        with page.expect_request(lambda one: one.method == "POST") as asked:
            say(page, "Hello!")
        wait_answered(page, 2)
    assert asked.value.post_data_json["messages"][1]["content"] == short
    page.reload()

    expect(prose.first).to_have_text(short)
    expect(prose).to_have_count(2)
    page.get_by_role("button", name="Earlier answer").click()
    expect(prose).to_have_count(1)
    assert prose.inner_text() != short


def last_for_long(route: Route) -> None:
    """The page's own request, to a model that says much."""
    if route.request.method == "POST":
        body = route.request.post_data_json | {"ignore_eos": True, "max_tokens": 800}
        route.continue_(post_data=body)
    else:
        route.continue_()


def test_an_answer_goes_on_when_its_chat_is_left_and_is_there_on_return(endless_page):
    page = endless_page
    page.route("**/v1/chat/completions", without_end)
    say(page, "Say much!")
    growing = page.locator("article.answer.is-growing .prose")
    expect(growing).not_to_be_empty()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("article")).to_have_count(0)
    item = page.locator("#chats li.is-running", has_text="Say much!")
    expect(item).to_be_visible()
    screenshot(page, "left")
    item.get_by_role("link").click()
    expect(page.locator("article.question p")).to_have_text("Say much!")
    expect(growing).not_to_be_empty()
    page.reload()
    expect(growing).not_to_be_empty()
    expect(page.locator("article.question p")).to_have_text("Say much!")
    page.get_by_role("button", name="Stop").click()

    wait_answered(page)
    expect(page.get_by_text("Cut short")).to_be_visible()
    expect(item).to_have_count(0)
    said = page.locator("article.answer .prose").inner_text()
    page.reload()
    wait_answered(page)
    assert page.locator("article.answer .prose").inner_text().startswith(said[:200])


def test_an_answer_is_stored_whole_though_its_page_was_closed(browser, server, page):
    page.route("**/v1/chat/completions", last_for_long)
    with page.expect_response("**/v1/chat/completions"):
        say(page, "Say all of it!")
    page.wait_for_url("**/#/chat/*")
    there = page.url
    page.close()
    with tab(browser, server.address, expected_error=ENDED_MEANWHILE) as other:
        other.goto(there)
        wait_answered(other)

        expect(other.get_by_role("alert")).to_have_count(0)
        expect(other.locator("#chats a", has_text="Say all of it!")).to_have_count(1)
        expect(other.get_by_text("Cut short")).to_be_visible()  # by the limit of the test


def test_branch_whose_answer_is_followed_after_a_reload_has_buttons_to_the_other(endless_page):
    page = endless_page
    say(page, "First?")
    wait_answered(page)
    page.route("**/v1/chat/completions", without_end)
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit and resend").click()
    page.get_by_label("Edited text").fill("Second?")
    page.keyboard.press("Enter")
    growing = page.locator("article.answer.is-growing .prose")
    expect(growing).not_to_be_empty()
    page.reload()
    expect(growing).not_to_be_empty()
    expect(page.locator("article.question p")).to_have_text("Second?")
    expect(page.locator("article.question .position")).to_have_text("2 of 2")
    expect(page.locator("#chats li.is-running")).to_have_count(1)
    page.get_by_role("button", name="Stop").click()
    wait_answered(page)
    expect(page.locator("#chats li.is-running")).to_have_count(0)  # it is stored
    page.get_by_role("button", name="Answer again").click()
    expect(growing).not_to_be_empty()
    page.reload()
    expect(growing).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()

    expect(page.locator("article.answer .position")).to_have_text("2 of 2")
    page.get_by_role("button", name="Earlier question").click()
    expect(page.locator("article.question p")).to_have_text("First?")
    wait_answered(page)


def test_chat_of_another_client_with_a_text_that_resembles_a_document_is_opened(page):
    part = {"type": "text", "text": '<file name="\\q">\nHello!\n</file>'}
    said = [{"role": "user", "content": [part]}]
    body = {"model": "builtin", "messages": said, "store": True}
    stored = page.request.post("/v1/chat/completions", data=body).json()
    page.goto(f"/#/stored/{stored['id']}")

    expect(page.locator("article.question p")).to_contain_text("Hello!")
    expect(page.locator("article.question li")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)


SEND_AT_ONCE = """([selector, text]) => {
  document.querySelector(selector).click();
  document.getElementById("prompt").value = text;
  document.getElementById("composer").requestSubmit();
}"""


def test_a_question_right_after_a_click_goes_to_the_chosen_chat(page):
    say(page, "Hello one!")
    wait_answered(page)
    page.evaluate(SEND_AT_ONCE, ["#new-chat", "Hello two!"])
    wait_answered(page)
    expect(page.locator("article.question")).to_have_text("Hello two!")
    expect(page.locator("#chats a[aria-current]")).to_have_text("Hello two!")
    page.evaluate(SEND_AT_ONCE, ["#chats a[title='Hello one!']", "And three?"])

    wait_answered(page, 2)
    expect(page.locator("article.question")).to_have_text(["Hello one!", "And three?"])
    expect(page.locator("#chats a[aria-current]")).to_have_text("Hello one!")


def test_a_chat_that_was_renamed_keeps_its_title_when_it_goes_on(page):
    say(page, "Hello Bob!")
    wait_answered(page)
    item = page.locator("#chats li", has_text="Hello Bob!")
    item.hover()
    item.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Greetings")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Greetings")).to_be_attached()
    with page.expect_request(lambda one: one.method == "POST") as asked:
        say(page, "Hello!")
    wait_answered(page, 2)

    assert asked.value.post_data_json["metadata"]["title"] == "Greetings"


def test_title_ends_before_a_character_for_which_there_is_no_room(page):
    say(page, f"{'a' * 79}\N{GRINNING FACE} and more?")
    wait_answered(page)

    expect(page.locator("#chats a")).to_have_text("a" * 79)
    expect(page.get_by_role("alert")).to_have_count(0)


TYPE_AT_ONCE = """(text) => {
  const field = document.activeElement;
  for (const letter of text) {
    field.value += letter;
    field.dispatchEvent(new Event("input"));
  }
}"""  # keys of a busy machine may have pauses between them


def test_chat_that_is_renamed_where_an_earlier_branch_was_found_has_its_title_everywhere(page):
    say(page, "Is it about her?\nHypatia")
    wait_answered(page)
    page.locator("article.question").hover()
    page.get_by_role("button", name="Edit and resend").click()
    page.get_by_label("Edited text").fill("Is it about him?\nEuclid")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 of 2").first).to_be_visible()
    wait_answered(page)
    field, item = page.get_by_label("Search chats"), page.locator("#chats li")
    store_chat(page, "Stored beside it")
    show_anew(page)
    expect(item).to_have_count(2)
    field.fill("unheard-of")
    expect(item).to_have_count(0)
    field.fill("Hypatia")
    expect(item).to_have_count(1)
    item.hover()
    item.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Scholars")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Scholars")).to_be_attached()
    field.fill("")

    expect(page.locator("#chats a")).to_have_text(["Stored beside it", "Scholars"])
    field.fill("Euclid")
    expect(page.locator("#chats a")).to_have_count(1)
    expect(page.locator("#chats a")).to_contain_text("Scholars")


def test_chats_are_searched_as_one_types(page):
    for text in ("Hello Alice of the Pythagoras school!", "Hello Carol!"):
        page.get_by_role("button", name="New chat").click()
        say(page, text)
        wait_answered(page)
        expect(page.locator("#chats a[aria-current]")).to_have_text(text)
    links = page.locator("#chats a")
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Search chats")).to_be_focused()
    with page.expect_request("**/v1/chat/search?*") as asked:
        page.evaluate(TYPE_AT_ONCE, "pythágor scho")
    expect(links).to_have_count(1)
    expect(links.locator("mark")).to_have_text(["Pythagoras", "school"])
    assert "query=pyth%C3%A1gor+scho&" in asked.value.url  # the pause has ended: one request
    screenshot(page, "search")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Hello Alice")).to_be_attached()
    page.get_by_label("Search chats").fill("unheard-of")
    expect(page.get_by_text("No chat has these words.")).to_be_visible()
    page.get_by_label("Search chats").press("Escape")

    expect(links.filter(has_text="Hello Carol!")).to_be_visible()
    page.get_by_label("Search chats").press("ArrowDown")
    expect(links.first).to_be_focused()


SEARCH = "**/v1/chat/search?*"


def search_by_enter(page: Page, words: str) -> None:
    field = page.get_by_label("Search chats")
    field.fill(words)
    field.press("Enter")


def test_a_search_that_fails_opens_no_chat(browser, server):
    with tab(browser, server.address, expected_error="ERR_FAILED") as page:
        page.goto("/")
        store_chat(page, "Stored before")
        show_anew(page)
        expect(page.get_by_role("link", name="Stored before")).to_be_visible()
        page.route(SEARCH, lambda route: route.abort())
        search_by_enter(page, "Elsewhere")
        expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
        page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which it is opened

        assert "#/chat/" not in page.url


def test_a_search_that_another_list_replaces_opens_no_chat(page):
    for title in ("Stored elsewhere", "Stored last"):
        store_chat(page, title)
    show_anew(page)
    expect(page.locator("#chats a")).to_have_count(2)
    held: list[Route] = []
    page.route(SEARCH, lambda route: held.append(route))
    search_by_enter(page, "Elsewhere")
    wait_until(lambda: held, page.wait_for_timeout)
    show_anew(page)
    page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which it is opened

    assert "#/chat/" not in page.url


def test_the_enter_key_opens_what_is_found_though_the_list_is_reloaded_meanwhile(browser, server):
    metadata = {"client": "web", "conversation": "answered", "title": "Being answered"}
    running = {"id": "d1", "created": 1, "model": "builtin", "metadata": metadata}
    with tab(browser, server.address) as page:
        page.clock.install()
        page.route("**/v1/chat/detached", lambda route: route.fulfill(json={"data": [running]}))
        store_chat(page, "Stored elsewhere")
        page.goto("/")
        expect(page.locator("#chats li.is-running")).to_have_count(1)
        held: list[Route] = []
        page.route(SEARCH, lambda route: held.append(route))
        search_by_enter(page, "Elsewhere")
        wait_until(lambda: held, page.wait_for_timeout)
        page.clock.run_for(4000)  # in which lists with a running chat are loaded again
        page.unroute(SEARCH)
        for route in held:
            with suppress(Error):  # the page has cancelled the request
                route.continue_()

        expect(page.get_by_role("heading", name="Stored elsewhere")).to_be_attached()


MATHEMATICS = r"""Euler: $e^{i\pi} + 1 = 0$ and \(a_1\),
for $5 and $10, US$3 or $20 to $30, 5$ and 10$.
Variables: $HOME/$USER, $A/${B} and $A:$_.

\[
\begin{aligned} a &= \int_0^\infty e^{-x^2}\,dx \\[4pt] &= \frac{\sqrt{\pi}}{2} \end{aligned}
\]

So:
$$x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}$$

`$code$`, \$escaped\$, $\notacommand$ and $\href{javascript:alert(1)}{here}$.
The last beginning counts: \(open, \(a_2\) and \[open, \[a_3\].
"""


def test_mathematics_is_drawn_and_money_is_money(page):
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    page.reload()
    expect(page.locator("#model")).to_have_value("builtin")
    assert not any("katex" in url for url in loaded)
    said = [{"role": "user", "content": "Prove it."}, {"role": "assistant", "content": MATHEMATICS}]
    file = {"title": "Proofs", "messages": said}
    page.locator("#chat-file").set_input_files(
        {"name": "a.json", "mimeType": "application/json", "buffer": json.dumps(file).encode()}
    )
    prose = page.locator("article.answer .prose")

    expect(prose.locator(".formula.display")).to_have_count(3)
    expect(prose.locator(".formula")).to_have_count(7)
    expect(prose.locator("code.formula-source")).to_have_text(r"\notacommand")
    expect(prose.locator("a")).to_have_count(0)
    money = "for $5 and $10, US$3 or $20 to $30, 5$ and 10$."
    expect(prose).to_contain_text(money)
    expect(prose).to_contain_text("Variables: $HOME/$USER, $A/${B} and $A:$_.")
    expect(prose).to_contain_text("$escaped$")
    expect(prose.locator("code", has_text="$code$")).to_have_count(1)
    assert page.evaluate(
        "() => document.fonts.ready.then(() => document.fonts.check('1em KaTeX_Main'))"
    )
    screenshot(page, "mathematics")


DIAGRAM = """A flow:

```mermaid
flowchart LR
  A[Question] --> B{Known?}
  B --> C[Answer]
```

```mermaid
flowchart OOPS (
```

```mermaid
sequenceDiagram
  Alice->>Bob: Still being written
"""


# Keeps the sources of all pictures that the page makes.
KEEP_PICTURES = """() => {
  const makeAddress = URL.createObjectURL;
  window.pictures = [];
  URL.createObjectURL = (blob) => {
    window.pictures.push(blob.text());
    return makeAddress.call(URL, blob);
  };
}"""
# What a frame can reach of the page, by its names.
REACHED = """() => {
  const attempts = {
    storage: () => localStorage.length,
    page: () => parent.document.title,
    cookies: () => document.cookie,
  };
  const works = (attempt) => { try { attempt(); return true; } catch { return false; } };
  return Object.keys(attempts).filter((name) => works(attempts[name]));
}"""


def show_answer(page: Page, text: str) -> None:
    said = [{"role": "user", "content": "Draw it."}, {"role": "assistant", "content": text}]
    file = chat_file("a.json", {"title": "Flow", "messages": said})
    page.locator("#chat-file").set_input_files(file)


def test_diagrams_are_pictures_with_their_source(page):
    show_answer(page, DIAGRAM)
    prose = page.locator("article.answer .prose")
    picture = prose.get_by_role("img", name="Diagram")

    expect(picture).to_have_count(1)
    assert picture.evaluate("image => image.naturalWidth") > 100
    source = prose.locator("figure.diagram pre")
    expect(source).to_be_hidden()
    prose.get_by_text("Source of the diagram").click()
    expect(source).to_contain_text("flowchart LR")
    screenshot(page, "diagram")
    # what is wrong, and what is still being written, is code
    expect(prose.locator(".block > figure.code")).to_have_count(2)
    expect(prose.locator("figure.code[title]")).to_contain_text("OOPS")
    (frame,) = [one for one in page.frames if one.url.endswith("/web/diagrams.html")]
    assert frame.evaluate(REACHED) == []


def test_diagram_that_would_run_a_script_runs_none(browser, server):
    with tab(browser, server.address, "violates the following Content Security Policy") as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        page.evaluate(KEEP_PICTURES)
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        show_answer(
            page, '```mermaid\nflowchart LR\n  A -->|"<img src=x onerror=alert(1)>"| B\n```\n'
        )
        expect(page.get_by_role("img", name="Diagram")).to_have_count(1)

        (drawn,) = page.evaluate("() => Promise.all(window.pictures)")
        assert "<img" not in drawn
        assert "onerror=" not in drawn
        assert dialogs == []


# Draws many formulas; returns how many were drawn each time that the page could answer.
DRAW_MANY = """async (count) => {
  const { drawMath } = await import("/web/math.js");
  const node = document.body.appendChild(document.createElement("div"));
  const add = (textContent) => {
    const code = document.createElement("code");
    node.append(Object.assign(code, { className: "formula-source", textContent }));
  };
  const drawn = () => node.querySelectorAll(".formula").length;
  add("x"); // loads KaTeX
  drawMath(node);
  while (!drawn()) await new Promise((resume) => setTimeout(resume));
  for (let number = 0; number < count; number++) add(String.raw`\\frac{${number}}{x^2}`);
  drawMath(node);
  const seen = [drawn()];
  while (drawn() <= count) {
    await new Promise((resume) => setTimeout(resume));
    seen.push(drawn());
  }
  node.remove();
  return seen;
}"""


def test_many_formulas_are_drawn_in_slices_between_which_the_page_answers(page):
    seen = page.evaluate(DRAW_MANY, 1000)

    assert 1 < seen[0] < 1001
    assert seen[-1] == 1001
    assert len(seen) > 3


# Draws an answer with this number of formulas; returns how many nodes are copied when it grows.
GROW = """async (count) => {
  const { Transcript, loadMarkdown } = await import("/web/transcript.js");
  await loadMarkdown();
  const answer = new Transcript().addAnswer(),
    { element } = answer,
    { cloneNode } = Node.prototype;
  const settle = async (isDrawn) => {
    while (!isDrawn()) await new Promise((resume) => setTimeout(resume, 10));
  };
  const lines = Array.from({ length: count }, (_, number) => `It is $x^{${number}}$.\n\n`),
    text = lines.join("");
  answer.update({ content: `${text}Last` });
  await settle(() => element.querySelectorAll(".formula").length === count);
  let copies = 0;
  Node.prototype.cloneNode = function (...values) {
    copies += 1;
    return cloneNode.apply(this, values);
  };
  answer.update({ content: `${text}Last word` });
  await settle(() => element.textContent.includes("Last word"));
  await new Promise((resume) => setTimeout(resume));
  element.remove();
  return copies;
}"""


def test_growing_answer_is_announced_without_its_blocks_of_before(page):
    assert page.evaluate(GROW, 100) < 10


LEX = """async (text) => {
  const { mathExtensions: extensions } = await import("/web/math.js");
  const { Marked } = await import("/web/vendor/marked.esm.js");
  new Marked({ extensions }).lexer(text);
}"""


def test_beginnings_of_formulas_without_ends_cost_no_reading_of_the_whole_text_each(page):
    browser = page.context.new_cdp_session(page)
    browser.send("Performance.enable")

    def processor_time_s() -> float:
        """Processor time of the page so far; a busy machine adds nothing to it."""
        metrics = browser.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "ProcessTime")

    def cost_s(text: str) -> float:
        before = processor_time_s()
        page.evaluate(LEX, text)
        return processor_time_s() - before

    for begin in ("\\[ a\n", "$$ a\n"):
        cost_s(begin)
        short, long = cost_s(begin * 6000), cost_s(begin * 48000)

        # For 8 times the text; reading all of it each time would take 64 times as long.
        assert long < 24 * short + 0.2, (begin, short, long)


@contextmanager
def naming_model(browser: Browser, folder: Path, expected_error: str = "nothing") -> Iterator[Page]:
    """A page of a server whose model names chats, which the built-in one does not."""
    (folder / "small.gguf").symlink_to(BUILTIN_PATH)
    flags = ("--model", str(folder / "small.gguf"))
    with serve(folder, *flags) as served, tab(browser, served.address, expected_error) as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("small")
        yield page


def test_a_new_chat_is_named_by_a_model_of_the_server_when_it_is_idle(browser, tmp_path):
    with naming_model(browser, tmp_path) as page:
        is_title = lambda one: one.method == "POST" and "flex" in (one.post_data or "")  # noqa: E731
        with page.expect_response(lambda one: is_title(one.request)) as answered:
            say(page, "Hello!")
        asked, answer = answered.value.request.post_data_json, answered.value.json()
        title = answer["choices"][0]["message"]["content"].split("\n")[0][:80]
        expect(page.locator("#chats a[aria-current]")).to_have_text(title)
        expect(page.get_by_role("heading", name=title)).to_be_attached()
        page.reload()
        expect(page.locator("#chats a")).to_have_text(title)

    assert asked["store"] is False
    assert title != "Hello!"


def test_a_title_of_the_user_is_not_replaced_by_a_generated_one(browser, tmp_path):
    with naming_model(browser, tmp_path, "409") as page:
        held: list[Route] = []

        def hold_title(route: Route) -> None:
            if "flex" in (route.request.post_data or ""):
                held.append(route)
            else:
                route.continue_()

        page.route("**/v1/chat/completions", hold_title)
        say(page, "Hello!")
        wait_until(lambda: held, page.wait_for_timeout)
        page.get_by_role("button", name="New chat").click()
        item = page.locator("#chats li", has_text="Hello!")
        item.hover()
        item.get_by_role("button", name="Rename").click()
        page.get_by_label("Title").fill("Mine")
        page.keyboard.press("Enter")
        expect(page.locator("#chats li", has_text="Mine").locator("button")).to_have_count(2)
        with page.expect_response("**/v1/chat/completions"):
            held[0].continue_()
        page.wait_for_timeout(500)  # in which the chat would be renamed
        page.reload()

        expect(page.locator("#chats a")).to_have_text("Mine")


STORED = re.compile("/v1/chat/completions/chatcmpl-")


def test_title_of_another_client_is_not_replaced_by_a_generated_one(browser, tmp_path):
    with naming_model(browser, tmp_path, "409") as page:
        held: list[Route] = []
        page.route(STORED, lambda one: held.append(one) if is_post(one) else one.continue_())
        say(page, "Hello!")
        wait_until(lambda: held, page.wait_for_timeout)  # the title is generated
        address = held[0].request.url
        metadata = page.request.get(address).json()["metadata"]
        page.request.post(address, data={"metadata": metadata | {"title": "Mine"}})
        with page.expect_response(lambda one: one.request.method == "POST"):
            held[0].continue_()
        page.reload()

        expect(page.locator("#chats a")).to_have_text("Mine")


def test_generated_title_is_kept_when_the_next_answer_was_requested_before(browser, tmp_path):
    with naming_model(browser, tmp_path) as page:
        held: list[Route] = []
        page.route(
            "**/v1/chat/completions",
            lambda one: held.append(one) if is_later(one) else one.continue_(),
        )
        say(page, "Hello!")
        wait_answered(page)
        say(page, "And now?")
        wait_until(lambda: len(held) == 2, page.wait_for_timeout)  # the title, and the answer
        held.sort(key=lambda one: "flex" not in (one.request.post_data or ""))
        with page.expect_response(STORED) as renamed:
            held[0].continue_()
        title = renamed.value.json()["metadata"]["title"]
        held[1].continue_()
        wait_answered(page, 2)

        expect(page.locator("#chats a")).to_have_text(title)
        expect(page.get_by_role("heading", name=title)).to_be_attached()
        page.reload()
        expect(page.locator("#chats a")).to_have_text(title)
    assert title != "Hello!"


def test_title_of_the_user_is_kept_when_the_answer_is_generated_again(browser, tmp_path):
    with naming_model(browser, tmp_path) as page:
        with page.expect_response(STORED):
            say(page, "Hello!")
        item = page.locator("#chats li")
        expect(item.get_by_role("link")).not_to_have_text("Hello!")  # the title is generated
        item.hover()
        item.get_by_role("button", name="Rename").click()
        page.get_by_label("Title").fill("Mine")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Mine")).to_be_attached()
        titles: list[Request] = []
        page.on("request", lambda one: "flex" in (one.post_data or "") and titles.append(one))
        with page.expect_response(re.compile(r"/v1/chat/completions\?limit=100")):
            page.get_by_role("button", name="Answer again").click()
        page.evaluate("fetch('ping').then((answer) => answer.text())")  # after which it is named

        assert titles == []
        page.reload()
        expect(page.locator("#chats a")).to_have_text("Mine")


def is_later(route: Route) -> bool:
    """True for a request of a title, and of another answer than the first one."""
    body = route.request.post_data or ""
    return "flex" in body or "And now?" in body


def is_post(route: Route) -> bool:
    return route.request.method == "POST"


def test_the_page_speaks_the_language_of_the_browser_or_the_one_chosen(browser, server):
    with tab(browser, server.address, locale="de-AT") as page:
        page.goto("/")
        expect(page.get_by_role("heading", name="Was beschäftigt Sie?")).to_be_visible()
        expect(page.get_by_label("Nachricht")).to_be_visible()
        page.get_by_role("button", name="Optionen").click()
        page.get_by_label("Sprache").select_option("中文")
        expect(page.get_by_role("heading", name="想聊点什么？")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "zh"
        page.get_by_label("消息", exact=True).fill("Hello!")
        page.get_by_role("button", name="发送").click()
        expect(page.get_by_role("button", name="重新回答")).to_be_visible()
        page.get_by_role("button", name="选项").click()
        screenshot(page, "chinese")
        page.get_by_label("语言").select_option("Français")
        expect(page.get_by_role("button", name="Nouvelle discussion")).to_be_visible()
        page.get_by_role("button", name="Options").click()
        page.get_by_label("Langue").select_option("Español")
        expect(page.get_by_role("button", name="Chat nuevo")).to_be_visible()


def test_earlier_states_of_a_chat_that_are_still_stored_are_no_branches(page):
    kept = re.compile("/v1/chat/completions/chatcmpl-.+")
    page.route(kept, lambda one: one.fulfill(json={}) if is_delete(one) else one.continue_())
    page.get_by_role("button", name="Options").click()
    page.get_by_text("More parameters").click()
    page.get_by_label("Max tokens").fill("4")
    say(page, "How do I load a real model?")
    wait_answered(page)
    page.get_by_label("Max tokens").fill("")
    go_on(page)
    answer = page.locator("article.answer .prose").inner_text()
    page.reload()

    expect(page.locator("article.answer .prose")).to_have_text(answer)
    expect(page.get_by_role("button", name="Earlier answer")).to_have_count(0)
    page.unroute(kept)


def is_delete(route: Route) -> bool:
    return route.request.method == "DELETE"
