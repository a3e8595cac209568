"""nginx and Caddy with the configurations of docs/proxy.md."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.missing import missing
from tests.ports import free_port
from tests.upstream import serving

MIB = 1 << 20


class Server:
    """Behind the proxy: tells what has come, and streams what stops in the middle."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        routes = [
            Route("/told", self.told, methods=["POST"]),
            Route("/stream", self.stream),
            Route("/{path:path}", self.anything),
        ]
        self.app = Starlette(routes=routes)

    async def told(self, request: Request) -> Response:
        size = sum([len(piece) async for piece in request.stream()])
        return JSONResponse({"host": request.headers["host"], "bytes": size})

    async def anything(self, _request: Request) -> Response:
        return Response("behind the proxy")

    async def stream(self, _request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield b"data: one\n\n"
            await self.goes_on.wait()
            yield b"data: [DONE]\n\n"

        headers = {"content-type": "text/event-stream", "x-accel-buffering": "no"}
        return StreamingResponse(events(), headers=headers)


def configuration_text(root: Path) -> str:
    """The document's lines for nginx."""
    page = (root / "docs/proxy.md").read_text(encoding="utf-8")
    return re.search(r"```nginx\n(.*?)```", page, re.DOTALL)[1]


def configuration(lines: str, folder: Path, *, listens: int, leads_to: int) -> str:
    """All that nginx wants, around these lines and without the certificate."""
    lines = re.sub(r" *ssl_\S+ .*\n", "", lines)
    lines = lines.replace("listen 443 ssl;", f"listen 127.0.0.1:{listens};")
    lines = lines.replace("127.0.0.1:8000", f"127.0.0.1:{leads_to}")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    return (
        f"daemon off; pid {folder}/pid; error_log stderr; {user} worker_processes 1;\n"
        f"events {{}}\nhttp {{ access_log off;\n{paths}\n{lines}\n}}\n"
    )


def nginx_command(root: Path, folder: Path, *, listens: int, leads_to: int) -> Sequence[str]:
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        missing("nginx is not installed; scripts/install_test_tools.sh does it.")
    file = folder / "nginx.conf"
    lines = configuration_text(root)
    file.write_text(configuration(lines, folder, listens=listens, leads_to=leads_to))
    return [nginx, "-c", str(file), "-p", str(folder)]


def caddy_command(root: Path, folder: Path, *, listens: int, leads_to: int) -> Sequence[str]:
    caddy = shutil.which("caddy")
    if caddy is None:
        missing("Caddy is not installed; scripts/install_test_tools.sh does it.")
    page = (root / "docs/proxy.md").read_text(encoding="utf-8")
    lines = re.search(r"```caddyfile\n(.*?)```", page, re.DOTALL)[1]
    lines = lines.replace("127.0.0.1:8000", f"127.0.0.1:{leads_to}")
    # without a certificate and with no port for its own settings
    lines = lines.replace("llm.example.com {", f"http://llm.example.com:{listens} {{", 1)
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{lines}")
    return [caddy, "run", "--adapter", "caddyfile", "--config", str(file)]


@pytest.fixture(params=[nginx_command, caddy_command], ids=["nginx", "caddy"])
async def proxied(
    request: pytest.FixtureRequest, root: Path, tmp_path: Path
) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server, port = Server(), free_port()
    async with serving(server.app) as behind:
        command = request.param(root, tmp_path, listens=port, leads_to=behind)
        environment = {**os.environ, "HOME": str(tmp_path)}  # Caddy's folder of certificates
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            await accepts(port)
            headers = {"host": "llm.example.com"}
            address = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=address, headers=headers) as client:
                yield server, client
        finally:
            process.terminate()
            await process.wait()


async def accepts(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def test_streams_pass_as_they_come(proxied):
    server, client = proxied
    async with client.stream("GET", "/stream") as response:
        lines = response.aiter_lines()
        first = await anext(lines)
        server.goes_on.set()
        rest = [line async for line in lines if line]

    assert (first, rest) == ("data: one", ["data: [DONE]"])


async def test_large_bodies_and_the_host_pass(proxied):
    _, client = proxied

    told = await client.post("/told", content=bytes(40 * MIB))

    assert told.json() == {"host": "llm.example.com", "bytes": 40 * MIB}


@pytest.mark.parametrize("prefix", ["", "/v1", "//v1/", "/%76%31"])
@pytest.mark.parametrize("name", ["metrics", "metrics/", "healthz", "readyz//", "m%65trics"])
async def test_operations_without_a_key_do_not_pass(proxied, prefix, name):
    _, client = proxied

    assert (await client.get(f"{prefix}/{name}?a=b")).status_code == 404
    assert (await client.get(f"{prefix}/models/{name}")).status_code == 200
