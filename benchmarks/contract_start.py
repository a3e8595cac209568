"""Time to build the contract, and its resident memory.

Run: python benchmarks/contract_start.py [--runs 5]. Each run is a process of its own; bytecode is
written first, as an installation does. Prints the best run of each figure and the validation times.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

CHILD = r"""
import json, os, time
started = float(os.environ["STARTED"])

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

figures = {"interpreter_ms": (time.time() - started) * 1e3}

def mark(name):
    figures[name + "_ms"] = (time.time() - started) * 1e3
    figures[name + "_cpu_ms"] = time.process_time() * 1e3
    figures[name + "_mib"] = resident_mib()

import uvicorn, starlette.responses
mark("uvicorn")
from llm_backend.contract import load_document
document = load_document()
mark("document")
from llm_backend.contract.response_validation import ResponseCheckMode
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.application.connexion_app import build_app
from llm_backend.contract.validation import Validators
mark("connexion_imported")
import asyncio

async def handler(services, request):
    return starlette.responses.Response(b"{}", media_type="application/json")

async def authenticate(headers, operation):
    return None

validators = Validators(document)
app = build_app(document, validators, None, handler_of=lambda operation: handler,
                authenticate=authenticate, limits=BodyLimits(), check_relayed=True,
                response_checks=ResponseCheckMode.OFF)

def scope(body):
    return {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"",
            "raw_path": b"/v1/chat/completions", "root_path": "", "scheme": "http",
            "http_version": "1.1", "server": ("localhost", 80), "client": ("localhost", 1),
            "headers": [(b"content-type", b"application/json"),
                        (b"content-length", str(len(body)).encode())]}

async def ask(body):
    sent = []
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        sent.append(message)
    await app(scope(body), receive, send)
    assert sent[0]["status"] == 200, sent

messages = [{"role": ("user", "assistant")[i % 2], "content": "How are you today? " * 10}
            for i in range(20)]
chat = {"model": "m", "messages": messages, "temperature": 0.7, "stream": True}
body = json.dumps(chat).encode()

async def run():
    await ask(body)
    mark("first_answer")
    begin = time.perf_counter()
    for _ in range(2000):
        await ask(body)
    figures["request_us"] = (time.perf_counter() - begin) / 2000 * 1e6

asyncio.run(run())
check = validators.body("createChatCompletion")
begin = time.perf_counter()
for _ in range(20000):
    check.check_request(chat)
figures["check_20_messages_us"] = (time.perf_counter() - begin) / 20000 * 1e6
bad = {**chat, "messages": [*messages, {"role": "user", "content": [{"type": "text"}]}]}
begin = time.perf_counter()
for _ in range(200):
    try:
        check.check_request(bad)
    except Exception:
        pass
figures["refuse_21_messages_us"] = (time.perf_counter() - begin) / 200 * 1e6
validators.warm(o for o in document.operations if document.operations[o].answered_by == "local")
figures["warm_mib"] = resident_mib()
print(json.dumps(figures))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=5)
    runs = arguments.parse_args().runs
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    best: dict[str, float] = {}
    for number in range(runs + 1):
        environment["STARTED"] = str(time.time())
        command = [sys.executable, "-c", CHILD]
        output = subprocess.run(command, env=environment, check=True, capture_output=True)
        if number == 0:
            continue  # the first run writes bytecode
        for name, value in json.loads(output.stdout).items():
            best[name] = min(value, best.get(name, value))
    for name, value in best.items():
        print(f"{name:28}{value:10.1f}")


if __name__ == "__main__":
    main()
