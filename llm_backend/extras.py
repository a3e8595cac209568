"""Extras of this package: optional dependencies, and the sentence for one that is not installed."""

from collections.abc import Mapping
from importlib.util import find_spec

from llm_backend.installation import pip

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "local": ("llama_cpp", "llguidance", "numpy", "PIL"),
    "qdrant": ("qdrant_client",),
    "convert": ("gguf", "numpy"),
    "hub": ("huggingface_hub",),
    "audio": ("av",),
    "images": ("PIL",),
    "draw": ("PIL", "stable_diffusion_cpp"),
    "realtime": ("webrtcvad",),
    "transcription": ("av", "numpy", "_pywhispercpp"),
    "voices": ("av", "numpy", "sherpa_onnx"),
}
"""Modules of extras whose absence is found before an import; `local` is the local engine."""


def is_installed(extra: str) -> bool:
    """Returns True if all modules of the extra can be imported; imports none of them."""
    return all(find_spec(module) is not None for module in EXTRAS[extra])


def install_command(*extras: str) -> str:
    """Returns the command that installs extras into this program's environment."""
    return f"{pip()} install 'llm-backend[{','.join(extras)}]'"


def needs_engine(subject: str) -> str:
    """Returns the sentence for a `subject` that needs the local engine where it is missing."""
    return f"{subject} needs the local engine, which is not installed: {install_command('local')}."


def missing_engine_hint() -> str:
    """Returns a sentence to append to an error if the local engine is not installed, else an empty
    text."""
    if is_installed("local"):
        return ""
    return f" The local engine is not installed: {install_command('local')}."
