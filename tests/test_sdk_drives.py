"""Every operation that is answered here and that the official client has a method for is called
through that method by some test, with the client that holds each answer to the SDK's models.

Which method is for which operation is not written down: each is called against a transport that
only shows where the request goes. Which methods tests call is read from their source.
"""

import ast
import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import openai

from llm_backend.contract import Operation, load_document

TESTS = Path(__file__).parent
NOT_LOOKED_INTO = {"live", "safety"}  # nothing there is answered
OF_SEVERAL = ("_poll", "poll", "stream", "upload_file_chunked", "connect", "wait_for_processing")
LISTS = {"messages", "part_ids", "file_ids", "items", "events", "model_ids"}
PLAIN_CLIENT = re.compile(r"\bopenai\.(Async)?OpenAI\(")
BYTES = {"file", "data", "image", "video"}


@functools.cache
def methods() -> dict[str, set[str]]:
    """The client's methods by operation, each as it is written behind a client."""
    reached: list[httpx.Request] = []

    def tell(request: httpx.Request) -> httpx.Response:
        reached.append(request)
        return httpx.Response(200, json={"data": [], "object": "list", "id": "x"})

    found: dict[str, set[str]] = {}
    http = httpx.Client(transport=httpx.MockTransport(tell))
    with openai.OpenAI(
        api_key="k", admin_api_key="k", base_url="http://x/v1", http_client=http
    ) as client:
        for name, method in _methods(client):
            reached.clear()
            _call(method)
            if reached and (operation := _operation(reached[0])):
                found.setdefault(operation.operation_id, set()).add(name)
    return found


def _methods(resource: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(type(resource)):
        if name.startswith(("_", "with_")) or name in NOT_LOOKED_INTO:
            continue
        if isinstance(inspect.getattr_static(type(resource), name), cached_property):
            yield from _methods(getattr(resource, name), (*path, name))
        elif path and callable(method := getattr(resource, name)) and not name.endswith(OF_SEVERAL):
            yield ".".join((*path, name)), method


def _call(method: Callable[..., Any]) -> None:
    """With whatever it wants; a request is all that is expected of it."""
    positional, named = [], {}
    for parameter in inspect.signature(method).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            continue
        value = [] if parameter.name in LISTS else b"x" if parameter.name in BYTES else "x"
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        elif parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            positional.append(value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            method(*positional, **named)
    except (openai.OpenAIError, TypeError, ValueError, AttributeError, RuntimeError):
        return  # it wants more than this, or a better answer


def _operation(request: httpx.Request) -> Operation | None:
    """The operation that a request is for; fixed paths go before parameters."""
    matching = [
        operation
        for operation in load_document().operations.values()
        if operation.method == request.method
        and re.fullmatch("/v1" + re.sub(r"\{[^}]*\}", "[^/]+", operation.path), request.url.path)
    ]
    return min(matching, key=lambda operation: operation.path.count("{"), default=None)


@functools.cache
def called() -> frozenset[str]:
    """Dotted names that tests call on a strict client: those of files without any other one."""
    texts = [file.read_text() for file in TESTS.rglob("*.py")]
    strict = [text for text in texts if not PLAIN_CLIENT.search(text)]
    return frozenset(chain for text in strict for chain in _chains(ast.parse(text)))


def _chains(tree: ast.Module) -> Iterator[str]:
    """The dotted names of what each function calls or hands on, without what they begin with,
    variables followed. What is called on a variable that runs over others may be any of those."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            variables = _variables(function)
            nodes = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
            named = {_attributes(node, variables) for node in nodes}
            yield from map(".".join, named)
            running = {chain[0] for chain in named if len(chain) == 1}
            yield from (".".join((*chain, name)) for chain in named for name in running)


def _variables(function: ast.AST) -> dict[str, tuple[str, ...]]:
    """Attributes that the variables of a function stand for."""
    variables: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(function):  # in the order of lines, within a block
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    variables[target.id] = _attributes(node.value, variables)
    return variables


def _attributes(node: ast.AST, variables: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    if isinstance(node, ast.Attribute):
        before = _attributes(node.value, variables)
        return before if node.attr.startswith("with_") else (*before, node.attr)
    if isinstance(node, ast.Name):
        return variables.get(node.id, ())
    return ()


def test_sdk_methods_are_matched_by_their_requests():
    found = methods()

    assert found["createChatCompletion"] >= {"chat.completions.create"}
    assert found["getVectorStoreFile"] == {"vector_stores.files.retrieve"}
    assert "createRerank" not in found


def test_official_client_is_tested_with_every_local_operation():
    not_called = {
        name: sorted(methods()[name])
        for name, operation in load_document().operations.items()
        if operation.answered_by == "local" and name in methods() and not methods()[name] & called()
    }

    assert not_called == {}, "a test should call one method of each"
