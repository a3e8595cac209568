"""`llm-backend models list` and `remove`: files in the models folder."""

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.lists import print_entry
from llm_backend.cli.options import Config
from llm_backend.installation import command
from llm_backend.json_types import JsonObject
from llm_backend.settings import Settings, load_settings

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    config: Config = None,
) -> None:
    """List the models in the models folder."""
    settings = load_settings({}, config)
    folder, last_uses = settings.models_folder, _load_last_uses(settings)
    records = [_record(path, folder, last_uses) for path in _list_files(folder)]
    if as_json:
        print(json.dumps(records, indent=2))
    elif not records:
        print(f"No models in {folder}: `{command('models pull OWNER/NAME')}` downloads one.")
    else:
        for record in records:
            _print(record)


def remove(
    model: Annotated[str, typer.Argument(help="OWNER/NAME[:QUANT], or a file in the folder.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    config: Config = None,
) -> None:
    """Remove a model's files from the models folder."""
    from llm_backend.model_files import (
        ModelFileMissing,
        find_model_file,
        model_folder,
        model_parts,
        remove_model,
    )

    folder = load_settings({}, config).models_folder
    try:
        path = find_model_file(model, folder)
    except ModelFileMissing as error:
        exit_with_error(str(error))
    if not path.resolve().is_relative_to(folder.resolve()):
        exit_with_error(f"{path} is not in {folder}: delete it by hand.")
    own_folder = model_folder(path, folder)
    parts = model_parts(path) if own_folder is None else own_folder.rglob("*")
    size = sum(part.stat().st_size for part in parts if part.is_file())
    target = own_folder or path
    if not yes:
        typer.confirm(f"Remove {target} ({size / 1e6:,.0f} MB)?", abort=True)
    remove_model(path, folder)
    print(f"Removed {target} ({size / 1e6:,.0f} MB).")


def _list_files(folder: Path) -> list[Path]:
    from llm_backend.model_files import list_model_files

    files = [path for path in folder.rglob("*.gguf") if not _LATER_PART.search(path.name)]
    return sorted({*files, *list_model_files(folder)})


def _load_last_uses(settings: Settings) -> Mapping[str, int]:
    """Return the last uses of models by name, in unix seconds, as far as the database has them."""
    if settings.missing_sqlite_file is not None:
        return {}
    from llm_backend.store import Database, StoreError
    from llm_backend.store.administration import StoredUsage

    async def load() -> Mapping[str, int]:
        async with Database.open(settings.database) as database:
            return await StoredUsage(database).last_uses()

    try:
        return asyncio.run(load())
    except StoreError as error:
        print(f"llm-backend: the last uses are unknown: {error}", file=sys.stderr)
        return {}


def _record(path: Path, folder: Path, last_uses: Mapping[str, int]) -> JsonObject:
    """Describe a model as JSON; `error` if its header cannot be read."""
    from llm_backend.model_files import (
        DiarizationFiles,
        DiffusionFile,
        HeaderError,
        RecognizerFiles,
        VoiceFiles,
        WhisperHeader,
        model_name,
        model_parts,
        read_model_file,
    )
    from llm_backend.settings.images import LOCAL_PIXELS

    size = sum(part.stat().st_size for part in model_parts(path) if part.exists())
    record = {"name": str(path.relative_to(folder)), "path": str(path), "bytes": size}
    stat = path.stat() if path.exists() else path.lstat()  # of a link to a missing file
    record["modified_at"] = int(stat.st_mtime)
    # a server names a model after its file, or after its path if two files have that name
    names = (model_name(path), str(path.relative_to(folder).with_suffix("")))
    uses = [last_uses[name] for name in names if name in last_uses]
    record["last_used_at"] = max(uses, default=None)
    try:
        file = read_model_file(path)
    except HeaderError as error:
        return {**record, "error": str(error)}
    match file:
        case WhisperHeader():
            more: JsonObject = {"architecture": "whisper", "languages": file.languages}
        case VoiceFiles():
            more = {"architecture": f"{file.family} voice", "languages": file.language}
            more["speakers"] = len(file.speakers)
        case RecognizerFiles() | DiarizationFiles():
            more = {"bytes": file.file_bytes, "description": file.description}
            more["architecture"] = "nemo" if isinstance(file, RecognizerFiles) else "speakers"
        case DiffusionFile():
            more = {"architecture": file.family, "missing": file.missing}
            memory_bytes = file.memory_bytes({}, LOCAL_PIXELS)
            return {**record, **more, "parameters": file.parameters, "memory_bytes": memory_bytes}
        case _:
            return {
                **record,
                "architecture": file.architecture,
                "parameters": file.parameters,
                "context_tokens": file.of_architecture("context_length"),
            }
    return {**record, **more, "memory_bytes": file.memory_bytes}


def _print(record: JsonObject) -> None:
    size = f"{record['bytes'] / 1e6:,.0f} MB"
    date = datetime.fromtimestamp(record["modified_at"]).strftime("from %Y-%m-%d")
    used_at = record["last_used_at"]
    used = used_at and datetime.fromtimestamp(used_at).strftime("last used %Y-%m-%d")
    facts = (size, date, used)
    if "error" in record:
        print_entry(record["name"], *facts, record["error"])
        return
    needs = f"{record.get('memory_bytes', 0) / 1e6:,.0f} MB of memory"
    about = record.get("languages", record.get("description"))
    if about is not None:
        print_entry(record["name"], *facts, record["architecture"], about, needs)
        return
    if "missing" in record:
        missing = record["missing"] and f"needs {', '.join(record['missing'])} besides"
        draws = f"{record['architecture']}: draws images"
        print_entry(record["name"], *facts, draws, needs, missing)
        return
    parameters = f"{record['parameters'] / 1e6:,.0f} M parameters"
    context = record["context_tokens"] and f"{record['context_tokens']:,} tokens of context"
    print_entry(record["name"], *facts, record["architecture"], parameters, context)
