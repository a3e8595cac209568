"""HTTP calls of the SDK's resource methods, read from the source of its classes.

A method that sends a request itself calls `self._get`, `_post`, `_put`, `_patch`, `_delete` or
`_get_api_list`. Methods that only combine others (`poll`, `stream`, `connect`) have no call.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Union

_SENDERS = {
    "_get": "get", "_post": "post", "_put": "put", "_patch": "patch", "_delete": "delete",
    "_get_api_list": "get",
}  # fmt: skip
_PAGE = "_get_api_list"


@dataclass(frozen=True, kw_only=True, slots=True)
class SdkCall:
    """One HTTP call of one method. `name` is the method's dotted path from a client.

    `params` is the type of the body, `query_params` that of the query string, and `query` are its
    names. `headers` maps names of headers to the parameters that they send. `answer` is the type of
    the answer (of a page for a list), `event` that of a stream's events. A call that `administers`
    needs an admin key.
    """

    name: str
    method: str
    path: str
    params: Any = None
    query_params: Any = None
    query: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    has_body: bool = False
    has_files: bool = False
    accept: str | None = None
    answer: Any = None
    event: Any = None
    administers: bool = False


def read_calls(*, is_async: bool = False) -> list[SdkCall]:
    """Returns the calls of every resource of the installed SDK, in the order of their names.

    Raises `ImportError` if the SDK is not installed.
    """
    calls = [
        call for name, each in _resources(_client(is_async)) for call in _calls_of(name, type(each))
    ]
    return sorted(calls, key=lambda call: (call.name, call.method, call.path))


def resource_modules() -> Iterator[tuple[str, Any]]:
    """Yields the modules of each resource's classes, after the resource's dotted name."""
    for name, each in _resources(_client(is_async=False)):
        for one in type(each).__mro__[:-1]:
            yield name, inspect.getmodule(one)


def class_nodes(module: Any) -> list[ast.ClassDef]:
    """Returns the syntax trees of a module's classes."""
    return [node for node in _module_tree(module).body if isinstance(node, ast.ClassDef)]


def sdk_version() -> str:
    """Returns the version of the installed SDK."""
    return str(importlib.import_module("openai").__version__)


def _client(is_async: bool) -> Any:
    sdk = importlib.import_module("openai")
    client_class = sdk.AsyncOpenAI if is_async else sdk.OpenAI
    return client_class(api_key="none", admin_api_key="none")


def _resources(owner: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yields every resource of a client, with its dotted name."""
    if path:
        yield ".".join(path), owner
    for name in dir(type(owner)):
        is_resource = isinstance(inspect.getattr_static(type(owner), name), cached_property)
        if is_resource and not name.startswith(("_", "with_")):
            yield from _resources(getattr(owner, name), (*path, name))


def _calls_of(resource: str, resource_class: type) -> Iterator[SdkCall]:
    for each in resource_class.__mro__[:-1]:  # a public class has no methods but those of its bases
        module = inspect.getmodule(each)
        for method in _class_node(module, each.__name__).body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(method):
                    if _sends_request(node):
                        yield _Reader(vars(module), method, node).call(f"{resource}.{method.name}")


@cache
def _module_tree(module: Any) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _class_node(module: Any, name: str) -> ast.ClassDef:
    return next(node for node in class_nodes(module) if node.name == name)


def _sends_request(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
        and node.func.attr in _SENDERS
    )


class _Reader:
    """Reader of one call; `names` are those of its module, for the call's expressions."""

    def __init__(self, names: Mapping[str, Any], method: ast.AST, node: Any) -> None:
        self._names, self._method, self._node = dict(names), method, node
        self._arguments = {each.arg: each.value for each in node.keywords}
        options = self._arguments.get("options")
        self._options = {each.arg: each.value for each in getattr(options, "keywords", ())}

    def call(self, name: str) -> SdkCall:
        """Returns the call as a value."""
        sender = self._node.func.attr
        method = ast.literal_eval(self._arguments["method"]) if "method" in self._arguments else ""
        body, query = self._arguments.get("body"), self._options.get("query")
        headers, fixed = self._headers()
        has_files = "files" in self._arguments or fixed.get("Content-Type", "").startswith("multi")
        return SdkCall(
            name=name,
            method=method or _SENDERS[sender],
            path=self._path(),
            params=self._transformed_type(body),
            query_params=self._transformed_type(query),
            query=tuple(self._keys(query)),
            headers=headers,
            has_body=body is not None,
            has_files=has_files,
            accept=fixed.get("Accept"),
            answer=self._type("page" if sender == _PAGE else "cast_to"),
            event=self._event(),
            administers=any(
                isinstance(each, ast.Constant) and each.value == "admin_api_key_auth"
                for each in ast.walk(self._node)
            ),
        )

    def _path(self) -> str:
        path = self._node.args[0]
        if isinstance(path, ast.Call):  # path_template("/things/{thing_id}", thing_id=thing_id)
            path = path.args[0]
        return str(ast.literal_eval(path))

    def _evaluate(self, node: ast.expr) -> Any:
        code = compile(ast.Expression(node), "<sdk>", "eval")
        return eval(code, self._names)  # noqa: S307 # an expression of the installed SDK

    def _type(self, argument: str) -> Any:
        node = self._arguments.get(argument)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "cast":
            node = node.args[1]  # cast(Any, TypeOfAnswer)
        if node is None or isinstance(node, ast.Call):
            return None
        return self._evaluate(node)

    def _event(self) -> Any:
        node = self._arguments.get("stream_cls")
        return self._evaluate(node.slice) if isinstance(node, ast.Subscript) else None

    @staticmethod
    def _transform(node: ast.expr | None) -> ast.Call | None:
        """Returns the call of `maybe_transform(values, type)` that makes a body or a query."""
        for each in ast.walk(node) if node is not None else ():
            if isinstance(each, ast.Call) and getattr(each.func, "id", "").endswith("transform"):
                return each
        return None

    def _transformed_type(self, node: ast.expr | None) -> Any:
        call = self._transform(node)
        if call is None or len(call.args) < 2:
            return None
        kind = call.args[1]
        if isinstance(kind, ast.IfExp):  # ParamsStreaming if stream else ParamsNonStreaming
            return Union[self._evaluate(kind.body), self._evaluate(kind.orelse)]  # noqa: UP007 - `|` has another origin
        return self._evaluate(kind)

    def _keys(self, node: ast.expr | None) -> Iterator[str]:
        call = self._transform(node)
        if call is not None and isinstance(call.args[0], ast.Dict):
            yield from (ast.literal_eval(key) for key in call.args[0].keys if key is not None)

    def _headers(self) -> tuple[dict[str, str], dict[str, str]]:
        """Returns two mappings by the name of a header: its parameter, and its fixed value."""
        parameters: dict[str, str] = {}
        fixed: dict[str, str] = {}
        for node in ast.walk(self._method):
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)):
                continue
            if ast.unparse(node.targets[0]) != "extra_headers":
                continue
            for key, value in _items(node.value):
                if isinstance(value, ast.Constant):
                    fixed[key] = str(value.value)
                elif names := [each.id for each in ast.walk(value) if isinstance(each, ast.Name)]:
                    parameters[key] = names[-1]
        return parameters, fixed


def _items(node: ast.Dict) -> Iterator[tuple[str, ast.expr]]:
    """Yields the items of a dict, with those of `**strip_not_given({...})` within it."""
    for key, value in zip(node.keys, node.values, strict=True):
        if isinstance(key, ast.Constant):
            yield str(key.value), value
        elif isinstance(value, ast.Call) and value.args and isinstance(value.args[0], ast.Dict):
            yield from _items(value.args[0])
