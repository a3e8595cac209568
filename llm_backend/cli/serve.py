"""`llm-backend serve`: settings from flags, environment and file, then the server."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_backend.cli.failing import fail
from llm_backend.cli.options import Config
from llm_backend.model_settings import ModelSettings
from llm_backend.settings import BUILTIN, Settings, SettingsSource

__all__ = ["serve"]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the database and of files.")
    ] = None,
    config: Config = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="GGUF file to serve, `builtin`, or `none`; may be repeated."),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Further name, `NAME` or `NAME=MODEL`; may be repeated."),
    ] = None,
    tool_format: Annotated[
        list[str] | None,
        typer.Option(
            help="How tool calls are written, `FORMAT` or `MODEL=FORMAT`; may be repeated."
        ),
    ] = None,
    draft_model: Annotated[
        list[str] | None,
        typer.Option(
            help="Smaller GGUF file that writes ahead, `FILE` or `MODEL=FILE`; may be repeated."
        ),
    ] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Tokens one sequence holds.")] = None,
    slots: Annotated[int | None, typer.Option(help="Sequences a model runs at once.")] = None,
    store_chats: Annotated[str | None, typer.Option(help="always, on-request or never.")] = None,
    retain_days: Annotated[
        float | None, typer.Option(help="Days after which what is stored is forgotten.")
    ] = None,
    response_validation: Annotated[str | None, typer.Option(help="off, log or enforce.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_prompts: Annotated[
        bool | None, typer.Option("--log-prompts", help="Log JSON request bodies.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="API processes that share the models.")
    ] = None,
    allow_open: Annotated[
        bool | None, typer.Option("--allow-open", help="Listen beyond loopback without a key.")
    ] = None,
) -> None:
    """Serve the API."""
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "models": None if model is None else [name for name in model if name != "none"],
        "aliases": alias,
        "tool_formats": tool_format,
        "draft_models": draft_model,
        "context_tokens": context_tokens,
        "slots": slots,
        "store_chats": store_chats,
        "retain_days": retain_days,
        "response_validation": response_validation,
        "log_level": log_level,
        "log_prompts": log_prompts,
        "processes": processes,
        "allow_open": allow_open,
    }
    source = SettingsSource(flags=given, file=config)
    settings = source.load()

    from llm_backend.serving import CannotServe
    from llm_backend.serving import serve as serve_settings

    try:
        serve_settings(settings, lambda address: _announce(address, settings), source)
    except CannotServe as error:
        fail(str(error))


def _announce(address: str, settings: Settings) -> None:
    base_url = f"{address}/v1"
    model = next((_name(given) for given in settings.models), None)
    print(f"Serving on {address}  (base URL for clients: {base_url})")
    print(f"Data lies in {settings.data_dir}")
    if model is not None:
        question = {"role": "user", "content": "Who are you?"}
        body = json.dumps({"model": model, "messages": [question]})
        print(f"Try: curl {base_url}/chat/completions \\")
        if settings.api_keys:
            print("       -H 'authorization: Bearer YOUR_KEY' \\")
        print(f"       -H 'content-type: application/json' -d '{body}'")
    sys.stdout.flush()


def _name(given: str | ModelSettings) -> str:
    entry = ModelSettings.model_validate({"path": given}) if isinstance(given, str) else given
    return entry.id or (BUILTIN if entry.path == BUILTIN else Path(entry.path).stem)
