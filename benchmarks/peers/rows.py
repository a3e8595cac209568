"""Rows of the comparison by name: each row of docs/engine-measurements.md is one command."""

from collections.abc import Mapping
from typing import Any

__all__ = ["ROWS"]

_BOTH = "llm-backend,llama-server"
_SETTINGS = f"{_BOTH},llama-server --cache-ram 0,llama-server --spec-default"
_STREAMS = "W1,W8,W16,S16"

ROWS: Mapping[str, Mapping[str, Any]] = {
    "main": {},
    "memory": {"servers": _BOTH, "workloads": "W16,S16", "rounds": 1, "no_limit": True},
    "q4": {"models": "135m-q4", "servers": _BOTH, "workloads": _STREAMS, "rounds": 2},
    "half-billion": {"models": "500m-q8", "servers": _BOTH, "workloads": _STREAMS, "rounds": 2},
    "sweep": {
        "servers": _BOTH,
        "workloads": "W1,W2,W4,W8,W16,W32,W64",
        "slots": 64,
        "context_tokens": 1024,
        "rounds": 2,
    },
    "arrival": {"servers": _BOTH, "workloads": "N15", "no_limit": True},
    "returning": {
        "servers": _BOTH,
        "workloads": "R24,R64",
        "slots": 8,
        "rounds": 1,
        "no_limit": True,
    },
    "gpu-streams": {
        "models": "1500m-q8",
        "servers": _BOTH,
        "workloads": "W1,W16,W64,W128,W256",
        "slots": 256,
        "context_tokens": 1024,
        "rounds": 2,
        "no_limit": True,
    },
    "gpu-unified": {  # beside the figures of `gpu-streams`
        "models": "1500m-q8",
        "servers": "llm-backend kv_unified",
        "workloads": "W16,W64,W256",
        "slots": 256,
        "context_tokens": 1024,
        "rounds": 1,
        "no_limit": True,
    },
    "gpu-shared": {
        "models": "1500m-q8",
        "servers": _BOTH,
        "workloads": "S16,S64,S128,N15",
        "slots": 128,
        "rounds": 2,
        "no_limit": True,
    },
    "gpu-returning": {
        "models": "1500m-q8",
        "servers": _BOTH,
        "workloads": "R64",
        "slots": 16,
        "context_tokens": 4096,
        "rounds": 1,
        "no_limit": True,
    },
    "settings": {
        "servers": _SETTINGS,
        "workloads": "W1,W8,W16,S16,R24",
        "rounds": 2,
        "slots": 8,
        "no_limit": True,
    },
    "copies": {
        "models": "135m-copies",
        "servers": _SETTINGS,
        "workloads": "W1,W8",
        "rounds": 2,
        "no_limit": True,
    },
    **{
        name: {
            "servers": f"llm-backend,{name}",
            "workloads": _STREAMS,
            "rounds": 2,
            "no_limit": True,
        }
        for name in ("openvino", "vllm")
    },
    "prefill": {
        "servers": "llm-backend,openvino,vllm",
        "workloads": "P1000,P4000,P7100",
        "slots": 4,
        "context_tokens": 8192,
        "rounds": 2,
        "no_limit": True,
    },
    "limit": {"servers": "llm-backend", "workloads": _STREAMS},
    "python": {
        "servers": "llm-backend,llama_cpp.server,example server",
        "workloads": "W8,W16",
        "rounds": 2,
        "no_limit": True,
    },
}
"""Options of `benchmarks.engine_peers` that differ from its defaults. What the command line says
goes before them."""
