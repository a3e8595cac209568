"""Stored chats on the chat page: saved as files, opened again, deleted together, answered anew."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium, picture, tab
from tests.live.test_web_page import say, wait_answered
from tests.serving import Served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with tab(browser, server.address) as one:
        one.goto("/")
        expect(one.locator("#model")).to_have_value("builtin")
        yield one


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


def test_several_chats_are_deleted_together(page):
    for text in ("Hello one!", "Hello two!", "Hello three!"):
        page.get_by_role("button", name="New chat").click()
        say(page, text)
        expect(page.locator("#chats a[aria-current]")).to_have_text(text)
    page.get_by_role("button", name="Select chats").click()
    page.get_by_label("Select Hello one!").check()
    page.get_by_label("Select Hello three!").check()
    picture(page, "select")
    page.get_by_role("button", name="Delete 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.locator("#chats a", has_text="Hello one!")).to_have_count(0)
    expect(page.locator("#chats a", has_text="Hello three!")).to_have_count(0)
    expect(page.locator("#chats a", has_text="Hello two!")).to_have_count(1)
    expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    expect(page.get_by_role("button", name="Delete 2")).to_be_hidden()


def test_answers_to_the_same_question_are_kept_until_the_chat_goes_on(page):
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
    picture(page, "variants")
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
    expect(page.get_by_role("button", name="Earlier answer")).to_have_count(0)


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
