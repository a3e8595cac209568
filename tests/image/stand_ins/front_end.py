"""A front end in the place of chatbot-ui's image, which has to come from a registry.

It reads the variables that the manifest gives chatbot-ui, and sends a chat with them to the server
as chatbot-ui does: `POST /api/chat` with `{"messages": [...]}`, answered by the server's answer.
"""

import json
import os
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class FrontEnd(BaseHTTPRequestHandler):
    """Answers `GET /` and `POST /api/chat`."""

    def do_GET(self) -> None:
        self._answer(b"chatbot-ui")

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = {"model": os.environ["DEFAULT_MODEL"], "store": True, **said}
        host = urlsplit(os.environ["OPENAI_API_HOST"]).netloc
        server = HTTPConnection(host, timeout=120)
        server.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {
                "authorization": f"Bearer {os.environ['OPENAI_API_KEY']}",
                "content-type": "application/json",
            },
        )
        answer = server.getresponse().read()
        for folder in (os.environ["HOME"], "/app/.next/cache"):
            Path(folder, "last").write_bytes(answer)
        self._answer(answer)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), FrontEnd).serve_forever()
