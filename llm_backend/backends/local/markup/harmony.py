"""Parser of Harmony, the format of gpt-oss: messages in several channels, each with a header:

<|channel|>analysis<|message|>thoughts<|end|><|start|>assistant<|channel|>commentary
 to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>
"""

import re

from llm_backend.backends.local.markup.family import Attempt, CallParser, Tools
from llm_backend.backends.local.markup.named_calls import read_arguments
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

CHANNEL, MESSAGE, START = "<|channel|>", "<|message|>", "<|start|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
HARMONY = (CHANNEL, MESSAGE, START, "<|constrain|>", *ENDS)

_HEAD_LENGTH = 512  # characters; a header has a role, a channel, a recipient and a content type
_RECIPIENT = re.compile(r"to=([^\s<]+)")
_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*(\w+)")


def harmony_messages(reader: MarkupReader, attempt: Attempt, tools: Tools) -> Steps[None]:
    """Reads the messages: analysis is reasoning, a message with a recipient is a call, any other
    one is content. A text without headers is content."""
    mark = ""
    while reader.current:
        head = yield from _read_header(reader, mark)
        channel, recipient = _CHANNEL.search(head), _RECIPIENT.search(head)
        if recipient is not None and tools:
            name = recipient[1].removeprefix("functions.")
            yield from attempt(_call_parser(name), "")
        reader.is_reasoning = channel is not None and channel[1] == "analysis" and not recipient
        write = reader.emit_reasoning if reader.is_reasoning else reader.emit_content
        mark = yield from reader.read_text_until(HARMONY, write)
        reader.is_reasoning = False


def _read_header(reader: MarkupReader, mark: str) -> Steps[str]:
    """Reads the header of the next message, which is markup and may begin with `mark`; returns an
    empty string if there is none."""
    head = mark if mark in (START, CHANNEL) else ""
    try:
        if not head:
            yield from reader.skip_space()
            head = yield from reader.expect_one_of(START, CHANNEL)
        while not head.endswith(MESSAGE):
            head += yield from reader.advance()
            if len(head) > _HEAD_LENGTH:
                raise NoCall
    except NoCall:
        if head and reader.is_cut and not reader.current:
            reader.commit()
        else:
            reader.backtrack()
        return ""
    reader.begin_markup()
    reader.commit()
    return head


def _call_parser(name: str) -> CallParser:
    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        yield from read_arguments(reader, name, *ENDS)
        yield from reader.try_one_of(*ENDS)

    return body
