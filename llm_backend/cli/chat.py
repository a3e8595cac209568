"""`llm-backend chat`: a conversation in the terminal, with any server that speaks the API."""

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from llm_backend.cli.api import Api, ApiRequestError
from llm_backend.cli.attachments import AttachmentError, attachment
from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.options import ApiKey, BaseUrl
from llm_backend.cli.player import PLAYERS, play
from llm_backend.cli.terminal import DIM, RED, colour, prepare_input, read_messages
from llm_backend.close_names import closest_name, did_you_mean
from llm_backend.home_folder import expand_home
from llm_backend.json_types import JsonMapping, JsonObject

Content = str | list[JsonObject]  # text, or text and attachments as parts

_COMMANDS = {
    "/new": "start a new conversation",
    "/again": "regenerate the last answer",
    "/say": "play the last answer, read aloud by --voice-model",
    "/attach [FILE]": "send an image or audio with the next message, or remove all attachments",
    "/file FILE": "send the text of a file with the next message",
    "/save FILE": "write the conversation to a file: as JSON if its name ends in .json, "
    "else Markdown",
    "/model [NAME]": "switch to another model, or list models",
    "/system [TEXT]": "set the system message, or remove it",
    "/help": "list the commands",
    "/quit": "quit (or Ctrl-D)",
}
_KEYS = """\
Ctrl-C         stop an answer; its text so far stays in the conversation
A line that ends with \\ goes on in the next; \"\"\" begins and ends a message of several lines.
Lines that are pasted are one message."""


def chat(
    message: Annotated[
        list[str] | None,
        typer.Argument(help="Message to send instead of reading messages. Piped text precedes it."),
    ] = None,
    base_url: BaseUrl = "http://127.0.0.1:8000/v1",
    model: Annotated[
        str | None, typer.Option(help="Model to chat with; the first one by default.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature, 0 to 2.")] = None,
    voice_model: Annotated[
        str, typer.Option(help="Model that reads answers aloud, for /say.")
    ] = "builtin-voice",
    api_key: ApiKey = None,
) -> None:
    """Chat with a model in the terminal; answers are streamed.

    Without MESSAGE, reads one message per line, also from a pipe; a backslash at its end continues
    a line.
    /attach FILE sends an image or audio with the next message; /help lists the commands.
    """
    text = None if message is None else " ".join(message)
    if text is not None and not text.strip():
        exit_with_error("MESSAGE is empty: give it a text or leave it out.", status=2)
    is_terminal = prepare_input()
    try:
        api = Api(base_url, api_key)
        conversation = ChatSession(api, model or first_model(api), system, temperature, voice_model)
        if text is not None:
            piped = "" if is_terminal else _read_piped().strip()
            _send(conversation, f"{piped}\n\n{text}" if piped else text)
            return
    except ApiRequestError as error:
        exit_with_error(str(error))
    if is_terminal:
        print(f"Chatting with {conversation.model} at {api.base_url}; /help lists the commands.")
    run_chat(conversation, read_messages(is_terminal=is_terminal), is_terminal=is_terminal)


def _read_piped() -> str:
    """Reads text from a pipe; bytes that are not UTF-8, as in logs, become U+FFFD."""
    return sys.stdin.buffer.read().decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of an answer: text, reasoning, or a call of a tool."""

    text: str
    kind: Literal["answer", "reasoning", "call"] = "answer"


class ChatSession:
    """Messages of a conversation with one model, and attachments of the next message."""

    def __init__(
        self,
        api: Api,
        model: str,
        system: str | None = None,
        temperature: float | None = None,
        voice_model: str = "builtin-voice",
    ) -> None:
        self.model = model
        self.system = system
        self.messages: list[JsonObject] = []
        self.attachments: list[JsonObject] = []  # parts of the next message
        self._api = api
        self._temperature = temperature
        self._voice_model = voice_model

    def send(self, content: Content, show: Callable[[Piece], None]) -> None:
        """Send a message with the attachments. The answer's pieces are passed to `show`, and its
        text is kept.

        A keyboard interrupt ends the answer early. Raises `ApiRequestError`; then the conversation
        is unchanged.
        """
        before = self.attachments
        self.messages.append({"role": "user", "content": self._with_attachments(content)})
        answer = ""
        try:
            with closing(self._pieces()) as pieces:
                for piece in pieces:
                    show(piece)
                    answer += piece.text if piece.kind == "answer" else ""
        except KeyboardInterrupt:
            show(Piece(text=" [stopped]"))
        except ApiRequestError:
            self.messages.pop()
            self.attachments = before
            raise
        self.messages.append({"role": "assistant", "content": answer})

    def pop_last_turn(self) -> Content | None:
        """Remove the last answer and its message; return the message, None if there is none."""
        if len(self.messages) < 2:
            return None
        *self.messages, message, _ = self.messages
        content: Content = message["content"]
        return content

    def speech(self) -> bytes | None:
        """Return the last answer, read aloud, as a WAV file; None if there is no text to read.
        Raises `ApiRequestError`."""
        text = str(self.messages[-1]["content"]).strip() if self.messages else ""
        if not text:
            return None
        body = {
            "model": self._voice_model, "voice": "alloy", "input": text, "response_format": "wav"
        }  # fmt: skip
        return self._api.post("/audio/speech", body)

    def models(self) -> list[str]:
        """Return the names of the server's models."""
        return [str(one["id"]) for one in self._api.get("/models")["data"]]

    def _with_attachments(self, content: Content) -> Content:
        if not self.attachments or not isinstance(content, str):
            return content
        attachments, self.attachments = self.attachments, []
        return [*attachments, {"type": "text", "text": content}]

    def _pieces(self) -> Generator[Piece, None, None]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        body: JsonObject = {
            "model": self.model, "messages": [*head, *self.messages], "stream": True
        }  # fmt: skip
        if self._temperature is not None:
            body["temperature"] = self._temperature
        calls: dict[int, list[str]] = {}
        with closing(self._api.events("/chat/completions", body)) as chunks:
            for chunk in chunks:
                for choice in chunk.get("choices") or ():
                    delta = choice.get("delta") or {}
                    yield from _pieces_of(delta)
                    _add_calls(calls, delta.get("tool_calls") or ())
        for name, arguments in calls.values():
            yield Piece(
                text=f"The model called {name}({arguments}); no tool runs here.", kind="call"
            )


def _pieces_of(delta: JsonMapping) -> Iterator[Piece]:
    if text := delta.get("reasoning_content") or delta.get("reasoning"):
        yield Piece(text=str(text), kind="reasoning")
    if text := delta.get("content") or delta.get("refusal"):
        yield Piece(text=str(text))


def _add_calls(calls: dict[int, list[str]], deltas: Iterable[JsonMapping]) -> None:
    """Append pieces of the names and arguments of calls, by the index of the call."""
    for delta in deltas:
        called = delta.get("function") or delta.get("custom") or {}
        call = calls.setdefault(delta.get("index") or 0, ["", ""])
        call[0] += called.get("name") or ""
        call[1] += called.get("arguments") or called.get("input") or ""


def first_model(api: Api) -> str:
    """Return the name of the server's first model. Raises `ApiRequestError` if it has none."""
    models = api.get("/models").get("data") or ()
    if not models:
        raise ApiRequestError(f"{api.base_url} has no models; name one with --model.")
    return str(models[0]["id"])


def run_chat(conversation: ChatSession, lines: Iterator[str], *, is_terminal: bool) -> None:
    """Send the lines, and run those that are commands. In a terminal an error is shown and the
    conversation stays as it was; elsewhere it ends the program."""
    for line in lines:
        if line == "/quit":
            return
        before = list(conversation.messages)
        try:
            content = _run_command(conversation, line) if _is_command(line) else line
            if content:
                _send(conversation, content)
        except (ApiRequestError, AttachmentError) as error:
            if not is_terminal:
                exit_with_error(str(error))
            conversation.messages = before
            print(colour(str(error), RED, sys.stderr), file=sys.stderr)


def _send(conversation: ChatSession, content: Content) -> None:
    """Send a message and print its answer. Raises `ApiRequestError`."""
    conversation.send(content, _Printer())
    print()


def _is_command(line: str) -> bool:
    """Return True for a line that begins with a command; one that begins with a path is a
    message."""
    return line.startswith("/") and "/" not in line.split(" ")[0][1:] and "\n" not in line


class _Printer:
    """Prints an answer. A terminal also shows reasoning, dimmed; calls go to standard error."""

    def __init__(self) -> None:
        self._was_reasoning = False

    def __call__(self, piece: Piece) -> None:
        if piece.kind == "call":
            print(colour(piece.text, DIM, sys.stderr), file=sys.stderr)
            return
        is_reasoning = piece.kind == "reasoning"
        if is_reasoning and not sys.stdout.isatty():
            return
        if self._was_reasoning and not is_reasoning:
            print("\n")
        self._was_reasoning = is_reasoning
        text = colour(piece.text, DIM, sys.stdout) if is_reasoning else piece.text
        print(text, end="", flush=True)


def _run_command(conversation: ChatSession, line: str) -> Content | None:
    """Run a command; return the message to send now, if any."""
    command, _, rest = line.partition(" ")
    match command:
        case "/again":
            return _last_message(conversation)
        case "/new":
            conversation.messages.clear()
            conversation.attachments.clear()
            print("A new conversation begins.")
        case "/say":
            _say(conversation)
        case "/attach":
            _attach(conversation, rest.strip())
        case "/system":
            _set_system(conversation, rest.strip())
        case "/file" if rest.strip():
            _attach_text(conversation, expand_home(rest.strip()))
        case "/save" if rest.strip():
            _save(conversation, expand_home(rest.strip()))
        case "/model":
            _switch_model(conversation, rest.strip())
        case "/help":
            print(*(f"{usage:<14} {effect}" for usage, effect in _COMMANDS.items()), sep="\n")
            print(_KEYS)
        case _:
            print(_usage_hint(command))
    return None


def _last_message(conversation: ChatSession) -> Content | None:
    message = conversation.pop_last_turn()
    if message is None:
        print("There is no message to send again.")
    return message


def _say(conversation: ChatSession) -> None:
    audio = conversation.speech()
    if audio is None:
        print("There is no answer to read aloud.")
    elif file := play(audio):
        players = ", ".join(name for name, *_ in PLAYERS)
        print(f"No player ({players}) could play the answer; it is in {file}.")


def _set_system(conversation: ChatSession, text: str) -> None:
    conversation.system = text or None
    print(f"The system message is {'set' if text else 'removed'}.")


def _usage_hint(command: str) -> str:
    if command in ("/file", "/save"):
        return f"{command} needs the name of a file."
    names = [usage.split()[0] for usage in _COMMANDS]
    hint = did_you_mean(closest_name(command.lower(), names))
    return f"Unknown command {command}; /help lists the commands.{hint}"


def _attach(conversation: ChatSession, path: str) -> None:
    if not path:
        conversation.attachments.clear()
        print("All attachments are removed.")
        return
    conversation.attachments.append(attachment(path))
    print(f"{len(conversation.attachments)} attached; they go with the next message.")


def _attach_text(conversation: ChatSession, path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise AttachmentError(f"{path} is not text in UTF-8.") from error
    except OSError as error:
        raise AttachmentError(f"{path} cannot be read: {error.strerror}.") from error
    conversation.attachments.append({"type": "text", "text": f"{path.name}:\n\n{text}"})
    print(f"{len(conversation.attachments)} attached; they go with the next message.")


def _save(conversation: ChatSession, path: Path) -> None:
    if path.suffix == ".json":
        saved = {
            "model": conversation.model,
            "system": conversation.system or "",
            "messages": conversation.messages,
        }
        text = json.dumps(saved, ensure_ascii=False, indent=2)
    else:
        names = {"user": "You", "assistant": conversation.model}
        text = "\n\n".join(
            f"## {names[one['role']]}\n\n{_text(one['content'])}" for one in conversation.messages
        )
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise AttachmentError(f"{path} cannot be written: {error.strerror}.") from error
    print(f"Saved to {path}.")


def _text(content: Content) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(str(part.get("text", f"[{part['type']}]")) for part in content)


def _switch_model(conversation: ChatSession, name: str) -> None:
    """Switch to a model; without a name, list the models. For a name that is not listed only a
    notice is printed, because the model may exist all the same."""
    names = conversation.models()
    if not name:
        print("\n".join(names))
        return
    conversation.model = name
    if name not in names:
        hint = did_you_mean(closest_name(name, names))
        print(f"{name} is not in the list of models.{hint}")
    else:
        print(f"{name} answers from now on.")
