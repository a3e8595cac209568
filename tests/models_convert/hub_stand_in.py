"""A stand-in of the Hugging Face hub: one repository, on a socket of this machine."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

REPOSITORY = "owner/tiny-GGUF"


class Hub:
    """A hub: its files, its received requests, and its faults.

    `checksums` replace the right ones. A download breaks off after `breaks_after` bytes, or stalls
    after `stops_after` until its client disconnects, once. It answers nothing until `answers`.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[tuple[str, str | None]] = []
        self.checksums: dict[str, str] = {}
        self.breaks_after: int | None = None
        self.stops_after: int | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.arrivals = threading.Semaphore(0)
        self.url = ""


@contextmanager
def hub_with(files: Mapping[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.asked.append((path, self.headers.get("Range")))
            hub.arrivals.release()
            hub.answers.wait()
            if path == f"/api/models/{REPOSITORY}":
                siblings = [_entry(hub, name) for name in hub.files]
                told = {"id": REPOSITORY, "siblings": siblings}
                self._answer(200, json.dumps(told).encode())
            elif path.startswith(f"/{REPOSITORY}/resolve/main/"):
                self._file(hub.files[path.removeprefix(f"/{REPOSITORY}/resolve/main/")])
            else:
                self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def _file(self, data: bytes) -> None:
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            start = int(found[1]) if found else 0
            end = int(found[2]) + 1 if found and found[2] else len(data)
            headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            self._answer(206 if found else 200, data[start:end], headers if found else {})

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if hub.breaks_after is not None and len(body) > hub.breaks_after:
                body, hub.breaks_after = body[: hub.breaks_after], None
                self.close_connection = True
            if hub.stops_after is not None and len(body) > hub.stops_after:
                body, hub.stops_after = body[: hub.stops_after], None
                self.wfile.write(body)
                self.rfile.read(1)  # nothing comes until it is closed
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _entry(hub: Hub, name: str) -> dict[str, object]:
    data = hub.files[name]
    sha256 = hub.checksums.get(name) or hashlib.sha256(data).hexdigest()
    lfs = {"sha256": sha256, "size": len(data), "pointerSize": 130}
    return {"rfilename": name, "size": len(data), "blobId": "0" * 40, "lfs": lfs}
