"""Texts read aloud by the served process, beside `espeak-ng` alone on the same text.

Prints a row for each format: processor seconds of the program alone and of the server with it,
audio for each second of the server's processor time, and the time until the first byte. Then eight
texts at once against one after the other, and a chat's tokens a second beside speech against alone.
Then the time from the end of the first sentence of a realtime answer to its first audio.
"""

import argparse
import http.client
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from websockets.sync.client import connect

from benchmarks.serve_start import answers
from llm_backend.extras import is_installed

TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun. "
FORMATS = ("wav", "pcm", "flac", "opus", "mp3", "aac")
BYTES_A_SECOND = 48_000  # of `pcm`: 16 bits, 24 kHz
AT_ONCE = 8
CHAT_S = 3  # for which a chat is measured
QUESTIONS = ("Hello!", "Who are you?", "What can you do?")
SENTENCE_END = re.compile(r"[.!?](\s|$)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--characters", type=int, default=4096)
    options = parser.parse_args()
    if shutil.which("espeak-ng") is None or not is_installed("audio"):
        print("espeak-ng or PyAV is not installed: sh scripts/install_test_tools.sh; make dev")
        return
    text = (TEXT * (options.characters // len(TEXT) + 1))[: options.characters]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_backend", "serve", "--port", str(port), "--data-dir",
             folder, "--model", "builtin", "--log-level", "error"],
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"},
        )  # fmt: skip
        try:
            while not answers(port):
                assert process.poll() is None, "the server did not start"
                time.sleep(0.05)
            measure_formats(port, process.pid, text)
            measure_together(port, text[: options.characters // 4])
            measure_realtime(port)
        finally:
            process.terminate()
            process.wait(30)


def measure_formats(port: int, pid: int, text: str) -> None:
    speak(port, "Hello.", "mp3")  # imports
    alone_s = program_s(text)
    audio_s = speak(port, text, "pcm")[1] / BYTES_A_SECOND
    print(f"{len(text)} characters, {audio_s:.0f} s of audio")
    print("| format | espeak-ng, CPU s | served, CPU s | audio s a CPU s | first byte, s |")
    print("|---|---|---|---|---|")
    for format in FORMATS:
        before_s = processor_s(pid)
        first_s, _ = speak(port, text, format)
        used_s = processor_s(pid) - before_s
        print(
            f"| {format} | {alone_s:.2f} | {used_s:.2f} | {audio_s / used_s:.0f} | {first_s:.3f} |"
        )


def measure_together(port: int, text: str) -> None:
    began_s = time.perf_counter()
    for _ in range(AT_ONCE):
        speak(port, text, "mp3")
    in_turn_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: speak(port, text, "mp3"), range(AT_ONCE)))
    at_once_s = time.perf_counter() - began_s
    beside = chat_beside(port, lambda: speak(port, text, "mp3"))
    print(
        f"\n{AT_ONCE} at once take {at_once_s / in_turn_s:.2f} of the time of one after the other"
    )
    print(f"A chat writes {beside:.2f} of its tokens a second beside speech")


def measure_realtime(port: int) -> None:
    times = [first_audio_s(port, question) * 1000 for question in QUESTIONS for _ in range(5)]
    print(
        f"First audio {statistics.median(times):.0f} ms after the first sentence of a realtime "
        f"answer (at most {max(times):.0f} ms)"
    )


def first_audio_s(port: int, question: str) -> float:
    """Seconds from the end of the first sentence of an answer to its first audio. An answer's text
    is sent as it is written; its end ends the sentence if no mark does."""
    item = {
        "type": "message", "role": "user", "content": [{"type": "input_text", "text": question}]
    }  # fmt: skip
    text, sentence_s, audio_s = "", None, None
    with connect(f"ws://127.0.0.1:{port}/v1/realtime?model=builtin") as session:
        session.send(json.dumps({"type": "conversation.item.create", "item": item}))
        session.send(json.dumps({"type": "response.create"}))
        for message in session:
            event = json.loads(message)
            if event["type"] == "response.output_audio_transcript.delta":
                text += event["delta"]
                if sentence_s is None and SENTENCE_END.search(text):
                    sentence_s = time.perf_counter()
            elif event["type"] == "response.output_audio_transcript.done":
                sentence_s = sentence_s or time.perf_counter()
            elif event["type"] == "response.output_audio.delta":
                audio_s = audio_s or time.perf_counter()
            elif event["type"] == "response.done":
                break
    assert sentence_s is not None, "the answer has no text"
    assert audio_s is not None, "the answer has no audio"
    return audio_s - sentence_s


def speak(port: int, text: str, format: str) -> tuple[float, int]:
    """Seconds until the first byte, and all bytes of a text read aloud."""
    body = {"model": "builtin-voice", "voice": "alloy", "input": text, "response_format": format}
    began_s = time.perf_counter()
    answer = post(port, "/v1/audio/speech", body)
    size = len(answer.read(1))
    first_s = time.perf_counter() - began_s
    while piece := answer.read(1 << 16):
        size += len(piece)
    return first_s, size


def chat_beside(port: int, work: Callable[[], object]) -> float:
    """A chat's tokens a second while `work` is done again and again, of those without, which are
    measured before and after it."""
    alone = chat_tokens_a_second(port)
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            work()

    working = threading.Thread(target=go_on)
    working.start()
    beside = chat_tokens_a_second(port)
    is_over.set()
    working.join()
    return 2 * beside / (alone + chat_tokens_a_second(port))


def chat_tokens_a_second(port: int) -> float:
    """Chats one after the other for three seconds, because a single one takes half of one."""
    body = {
        "model": "builtin",
        "messages": [{"role": "user", "content": "Count to a hundred."}],
        "max_tokens": 300,
        "min_tokens": 300,
    }
    began_s, tokens = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - began_s) < CHAT_S:
        answer = json.loads(post(port, "/v1/chat/completions", body).read())
        tokens += answer["usage"]["completion_tokens"]
    return tokens / elapsed_s


def post(port: int, path: str, body: Mapping[str, object]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return answer


def program_s(text: str) -> float:
    """Processor seconds of the program alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["espeak-ng", "-b", "1", "-v", "gmw/en-US", "--stdin", "--stdout"]
    subprocess.run(command, input=text.encode(), stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processor_s(pid: int) -> float:
    """Processor seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
