"""The program `espeak-ng`: reads a text aloud in a child process, as samples.

The process computes far faster than audio is played and writes while it computes, so one process
reads a whole text. If the client is slow, the full pipe blocks the process.
"""

import asyncio
import logging
import re
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

from llm_backend.backends.speech.sentences import is_spoken
from llm_backend.backends.speech.speech_synthesizer import NOT_INSTALLED, Samples
from llm_backend.backends.speech.voices import VoiceNames, voices_by_id
from llm_backend.child_process import run_child
from llm_backend.errors import DeadlineExceeded, EngineUnavailable, Internal, Unsupported

log = logging.getLogger(__name__)

PACKAGE = "espeak-ng"
WORDS_PER_MINUTE = 175
"""Default speed of the program."""
LEAST_RATE, GREATEST_RATE = 80, 450
"""Words per minute that every build of the program supports; other rates are clamped to them."""

_HEADER_BYTES = 44  # header of the WAV file that the program writes
_CHUNK_BYTES = 64 * 1024
_ERROR_BYTES = 2048
# To the program, `[[` begins phonemes and control characters begin commands. Here both are text.
_COMMAND = re.compile(r"\[(?=\[)")  # the first of two brackets
_PUNCTUATION = re.compile(r"([,;:.!?])[,;:.!?]*(?=\s|$)")  # at the end of a clause
_LANGUAGE_SWITCH = re.compile(r"\([a-z-]+\)")  # in the program's phonemes
_CONTROL_CHARACTERS = {code: " " for code in range(32) if chr(code) not in "\t\n"} | {127: " "}


def missing_program_message(model: str) -> str:
    """Returns the error message of a model whose program is not installed."""
    return (
        f"`{model}` needs the program espeak-ng, which is not installed: install your "
        f"distribution's package `{PACKAGE}` (Debian, Ubuntu: apt-get install {PACKAGE})."
    )


class Espeak:
    """The program by its name or path.

    A process that writes nothing for `timeout_s` is killed. `others` maps further names to its
    voices.
    """

    def __init__(self, program: str, *, timeout_s: float, others: Mapping[str, str]) -> None:
        self._program = program
        self._timeout_s = timeout_s
        self._others = others
        self._names: VoiceNames | None = None
        self._lock = asyncio.Lock()  # one request at a time lists the voices

    @property
    def is_installed(self) -> bool:
        """True if the program is installed."""
        return shutil.which(self._program) is not None

    async def voice_names(self) -> VoiceNames:
        """Returns the names of its voices, which the program lists once."""
        async with self._lock:
            if self._names is None:
                voices = voices_by_id(await self._listing("--voices"))
                variants = voices_by_id(await self._listing("--voices=variant"))
                self._names = VoiceNames(voices=voices, variants=variants, others=self._others)
            return self._names

    @asynccontextmanager
    async def speak(self, text: str, voice: str, words_per_minute: int) -> AsyncIterator[Samples]:
        """Yields the audio of a text while it is being computed. The process is killed at the end.
        Raises `ApiError`, also while the chunks are read."""
        rate = str(words_per_minute)
        async with self._run("-b", "1", "-v", voice, "-s", rate, "--stdin", "--stdout") as process:
            assert process.stdin is not None
            process.stdin.write(_plain_text(text).encode())
            process.stdin.close()
            async with aclosing(self._chunks(process)) as chunks:
                header = b""
                while len(header) < _HEADER_BYTES and (chunk := await anext(chunks, b"")):
                    header += chunk
                if len(header) < _HEADER_BYTES:
                    raise _failure(0, b"It wrote no audio.")
                rate_hz = int.from_bytes(header[24:28], "little")
                async with aclosing(_whole_samples(header[_HEADER_BYTES:], chunks)) as samples:
                    yield Samples(rate_hz=rate_hz, chunks=samples)

    async def phonemes(self, sentence: str, voice: str) -> str:
        """Returns the phonemes of a sentence, with its punctuation, which the program leaves out.
        `voice` is one of the program's languages. Raises `ApiError`."""
        parts = _PUNCTUATION.split(_plain_text(sentence))
        clauses = [await self._ipa(one, voice) if is_spoken(one) else "" for one in parts[::2]]
        marks = [*parts[1::2], ""]
        spoken = [clause + mark for clause, mark in zip(clauses, marks, strict=True) if clause]
        return " ".join(spoken)

    async def _ipa(self, clause: str, voice: str) -> str:
        async with self._run("-q", "-b", "1", "--ipa", "-v", voice, "--stdin") as process:
            assert process.stdin is not None
            process.stdin.write(clause.encode())
            process.stdin.close()
            text = b"".join([chunk async for chunk in self._chunks(process)]).decode()
        return " ".join(_LANGUAGE_SWITCH.sub("", text).split())

    async def _listing(self, option: str) -> str:
        async with self._run(option) as process:
            return b"".join([chunk async for chunk in self._chunks(process)]).decode()

    @asynccontextmanager
    async def _run(self, *arguments: str) -> AsyncIterator[Process]:
        """Starts the program without a shell and without this server's environment."""
        path = shutil.which(self._program)
        if path is None:
            raise Unsupported(
                missing_program_message("builtin-voice"), param="model", code=NOT_INSTALLED
            )
        async with run_child(path, *arguments, environment={"LC_ALL": "C.UTF-8"}) as process:
            yield process

    async def _chunks(self, process: Process) -> AsyncGenerator[bytes, None]:
        """Yields what the process writes. Raises `ApiError` if it fails."""
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            while True:
                async with asyncio.timeout(self._timeout_s):
                    chunk = await process.stdout.read(_CHUNK_BYTES)
                if not chunk:
                    break
                yield chunk
            async with asyncio.timeout(self._timeout_s):
                message = await process.stderr.read(_ERROR_BYTES)
                code = await process.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"{PACKAGE} computed nothing for {self._timeout_s:g} s and was ended."
            ) from None
        if code:
            raise _failure(code, message)


def _plain_text(text: str) -> str:
    """Returns the text without the characters that begin commands of the program."""
    return _COMMAND.sub("[ ", text.translate(_CONTROL_CHARACTERS))


async def _whole_samples(
    first: bytes, chunks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yields the same bytes, cut between samples of 16 bits; a part of a sample comes last."""
    rest = first
    async for chunk in chunks:
        data = rest + chunk
        end = len(data) // 2 * 2
        yield data[:end]
        rest = data[end:]
    if rest:
        yield rest


def _failure(code: int, message: bytes) -> EngineUnavailable | Internal:
    """Returns the error of a process with this exit code, negative if a signal ended it."""
    if code < 0:
        return EngineUnavailable(f"{PACKAGE} was killed while it spoke; try again.")
    fields = {"code": code, "reason": message.decode(errors="replace").strip()}
    log.error("voice_program_failed", extra=fields)
    return Internal(f"{PACKAGE} ended with the code {code}; the server's log has its message.")
