"""OpenVINO GenAI as a server of streamed chats, with its own continuous batching and prefix cache.

    PYTHON benchmarks/peers/openvino_server.py MODEL.gguf PORT SLOTS CONTEXT_TOKENS

It reads the GGUF file itself, keeps its 8-bit weights, and runs in an environment of its own that
has `openvino-genai`. Only what the load client asks for is served.
"""

import itertools
import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openvino_genai  # type: ignore[import-not-found] # it is in another environment

CELL_BYTES = 2 * 30 * 192 * 2  # of a token: keys and values of 30 layers in half precision
IDLE_S = 0.002
TEMPLATE = "<|im_start|>{role}\n{content}<|im_end|>\n"


class Batching:
    """The pipeline, and a thread that runs its steps; answers go to the queues of requests."""

    def __init__(self, model: str, slots: int, context_tokens: int) -> None:
        settings = openvino_genai.SchedulerConfig()
        settings.max_num_seqs = slots
        settings.enable_prefix_caching = True
        settings.cache_size = max(1, round(slots * context_tokens * CELL_BYTES / 2**30 + 0.5))
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(model, settings, "CPU", {})
        self.tokenizer = self._pipeline.get_tokenizer()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._running: list[tuple[Any, queue.SimpleQueue[list[int] | None]]] = []
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, prompt: str, config: Any) -> "queue.SimpleQueue[list[int] | None]":
        """Begin an answer; its tokens come in the queue, then None."""
        tokens: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        handle = self._pipeline.add_request(next(self._numbers), prompt, config)
        with self._lock:
            self._running.append((handle, tokens))
        return tokens

    def _run(self) -> None:
        idle = threading.Event()
        while True:
            is_busy = self._pipeline.has_non_finished_requests()
            if is_busy:
                self._pipeline.step()
            with self._lock:
                self._running = [one for one in self._running if not _deliver(*one)]
            if not is_busy:
                idle.wait(IDLE_S)


def _deliver(handle: Any, tokens: "queue.SimpleQueue[list[int] | None]") -> bool:
    """Hand over what a step has generated; True if that was the end."""
    while handle.can_read():
        for output in handle.read().values():
            tokens.put(list(output.generated_ids))
    is_over = handle.get_status() != openvino_genai.GenerationStatus.RUNNING
    if is_over:
        tokens.put(None)
    return bool(is_over)


class Handler(BaseHTTPRequestHandler):
    """Answers `POST /v1/chat/completions`, as events if the client wants a stream."""

    protocol_version = "HTTP/1.1"
    batching: Batching

    def do_POST(self) -> None:
        """Read the chat, generate, answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = "".join(TEMPLATE.format(**one) for one in body["messages"])
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = body["max_tokens"]
        config.ignore_eos = True
        config.do_sample = bool(body.get("temperature", 1.0))
        config.temperature = body.get("temperature", 1.0)
        config.top_p = body.get("top_p", 1.0)
        config.rng_seed = body.get("seed", 0)
        prompt += "<|im_start|>assistant\n"
        tokens = self.batching.submit(prompt, config)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        count = 0
        while (found := tokens.get()) is not None:
            count += len(found)
            text = self.batching.tokenizer.decode(found) or " "
            self._send({"choices": [{"index": 0, "delta": {"content": text}}]})
        self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        read = self.batching.tokenizer.encode(prompt).input_ids.get_shape()[-1]
        usage = {"completion_tokens": count, "prompt_tokens": read}
        self._send({"choices": [], "usage": usage})
        self._write(b"data: [DONE]\n\n")
        self._write(b"")

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def _send(self, event: dict[str, Any]) -> None:
        self._write(b"data: %s\n\n" % json.dumps(event).encode())

    def _write(self, data: bytes) -> None:
        """Write a chunk; an empty one ends the answer."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def main() -> None:
    """Serve until the process is ended."""
    model, port, slots, context_tokens = sys.argv[1:5]
    Handler.batching = Batching(model, int(slots), int(context_tokens))
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
