"""`llm-backend chat`: a conversation in the terminal, with any server that speaks the API."""

import importlib
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from typing import Annotated, Any

import typer

from llm_backend.cli.api import Api, ApiRequestError
from llm_backend.cli.attachments import AttachmentError, attachment
from llm_backend.cli.failing import fail
from llm_backend.cli.options import ApiKey, BaseUrl

__all__ = ["Conversation", "chat"]

Content = str | list[dict[str, Any]]  # words, or words and what goes with them

_COMMANDS = """\
/new           forget what was said
/again         have the last answer said anew
/attach [FILE] send a picture or a sound with the next message, or drop what is attached
/model [NAME]  talk to another model, or list them
/system [TEXT] set the system message, or drop it
/quit          leave (or Ctrl-D)
Ctrl-C         stop an answer; what has come of it is kept"""


def chat(
    base_url: BaseUrl = "http://127.0.0.1:8000/v1",
    model: Annotated[
        str | None, typer.Option(help="Model to talk to; the first one where not given.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature, 0 to 2.")] = None,
    api_key: ApiKey = None,
) -> None:
    """Talk to a model: answers are streamed, the conversation goes on.

    Reads a line at a time, from a pipe too. /attach FILE sends a picture or a sound with the next
    message; /help lists the commands.
    """
    try:
        api = Api(base_url, api_key)
        conversation = Conversation(api, model or _first_model(api), system, temperature)
    except ApiRequestError as error:
        fail(str(error))
    is_person = sys.stdin.isatty()
    if is_person:
        with suppress(ImportError):
            importlib.import_module("readline")  # arrow keys and earlier lines
        print(f"Talking to {conversation.model} at {api.base_url}; /help lists the commands.")
    _talk(conversation, _lines("> " if is_person else ""), is_person=is_person)


class Conversation:
    """What was said with one model, and what is said next."""

    def __init__(
        self, api: Api, model: str, system: str | None = None, temperature: float | None = None
    ) -> None:
        self.model = model
        self.system = system
        self.messages: list[dict[str, Any]] = []
        self.attached: list[dict[str, Any]] = []  # parts of what is said next
        self._api = api
        self._temperature = temperature

    def say(self, said: Content, show: Callable[[str], None]) -> None:
        """Say something, with what is attached; what is answered is shown as it comes and
        remembered. A keyboard interrupt ends the answer where it is. Raises `Refused`, with nothing
        remembered."""
        self.messages.append({"role": "user", "content": self._with_attached(said)})
        answer = ""
        try:
            with closing(self._pieces()) as pieces:
                for piece in pieces:
                    show(piece)
                    answer += piece
        except KeyboardInterrupt:
            show(" [stopped]")
        except ApiRequestError:
            self.messages.pop()
            raise
        self.messages.append({"role": "assistant", "content": answer})

    def again(self) -> Content | None:
        """Forget the last answer and what was asked; gives that back, None where there is none."""
        if len(self.messages) < 2:
            return None
        *self.messages, asked, _ = self.messages
        content: Content = asked["content"]
        return content

    def models(self) -> list[str]:
        """The names of those that can be talked to."""
        return [str(one["id"]) for one in self._api.get("/models")["data"]]

    def _with_attached(self, said: Content) -> Content:
        attached, self.attached = self.attached, []
        if not attached or not isinstance(said, str):
            return said
        return [*attached, {"type": "text", "text": said}]

    def _pieces(self) -> Generator[str, None, None]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        body: dict[str, Any] = {
            "model": self.model, "messages": [*head, *self.messages], "stream": True
        }  # fmt: skip
        if self._temperature is not None:
            body["temperature"] = self._temperature
        with closing(self._api.events("/chat/completions", body)) as chunks:
            for chunk in chunks:
                yield from _texts(chunk)


def _texts(chunk: Mapping[str, Any]) -> Iterator[str]:
    for choice in chunk.get("choices") or ():
        if text := (choice.get("delta") or {}).get("content"):
            yield str(text)


def _first_model(api: Api) -> str:
    models = api.get("/models").get("data") or ()
    if not models:
        raise ApiRequestError(f"{api.base_url} has no models; name one with --model.")
    return str(models[0]["id"])


def _lines(prompt: str) -> Iterator[str]:
    while True:
        try:
            yield input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            return


def _talk(conversation: Conversation, lines: Iterator[str], *, is_person: bool) -> None:
    for line in lines:
        if line == "/quit":
            return
        try:
            asked = _run_command(conversation, line) if line.startswith("/") else line
            if asked:
                conversation.say(asked, lambda piece: print(piece, end="", flush=True))
                print()
        except (ApiRequestError, AttachmentError) as error:
            if not is_person:
                fail(str(error))
            print(error, file=sys.stderr)


def _run_command(conversation: Conversation, line: str) -> Content | None:
    """Do what a command says; gives what is to be asked now, if anything is."""
    command, _, rest = line.partition(" ")
    match command:
        case "/again":
            return conversation.again()
        case "/new":
            conversation.messages.clear()
            conversation.attached.clear()
        case "/attach":
            _attach(conversation, rest.strip())
        case "/system":
            conversation.system = rest.strip() or None
        case "/model" if rest.strip():
            conversation.model = rest.strip()
        case "/model":
            print("\n".join(conversation.models()))
        case "/help":
            print(_COMMANDS)
        case _:
            print(f"There is no {command}; /help lists the commands.")
    return None


def _attach(conversation: Conversation, words: str) -> None:
    if not words:
        conversation.attached.clear()
        print("Nothing is attached.")
        return
    conversation.attached.append(attachment(words))
    print(f"{len(conversation.attached)} attached; say something to send it.")
