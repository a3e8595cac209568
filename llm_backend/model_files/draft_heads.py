"""Heads of a model that draft tokens (multi-token prediction, MTP): layers after the model's own,
which predict one token more from the hidden state of the last one."""

from llm_backend.model_files.header import GgufHeader

# architectures whose recurrent state llama.cpp can take back by a few tokens, from snapshots
_WITH_SNAPSHOTS = frozenset({"qwen35", "qwen35moe"})
# architectures for which llama.cpp has a graph of one head over cells, and the tests a model
_SUPPORTED = _WITH_SNAPSHOTS | {"deepseek2", "glm4moe", "hy_v3"}
# those with a graph, and a recurrent state of which llama.cpp keeps no snapshots
_RECURRENT = frozenset({"qwen3next"})
_MOST_SNAPSHOTS = 3  # each is as large as the state, and written in every pass


def draft_head_count(header: GgufHeader) -> int:
    """Number of the model's draft heads, as its header says."""
    count = header.of_architecture("nextn_predict_layers")
    return count if isinstance(count, int) and count > 0 else 0


def draft_head_problem(header: GgufHeader) -> str | None:
    """Reason why the draft heads of a model are not used; None if they are."""
    count, architecture = draft_head_count(header), header.architecture
    if not _has_weights(header):
        return "the file does not have their weights"
    if architecture in _RECURRENT:
        return f"the state of {architecture} cannot be truncated after a rejected draft"
    if architecture not in _SUPPORTED:
        return f"those of {architecture} are not supported"
    if count > 1:
        return f"there are {count} of them, and only one is supported"
    return None


def snapshot_count(header: GgufHeader, draft_tokens: int) -> int:
    """Number of snapshots of each sequence's recurrent state, for drafts of the model's own head.
    Each snapshot takes the memory of a state. 0 for other models."""
    if not draft_head_count(header) or draft_head_problem(header) is not None:
        return 0
    return min(draft_tokens, _MOST_SNAPSHOTS) if header.architecture in _WITH_SNAPSHOTS else 0


def _has_weights(header: GgufHeader) -> bool:
    layers = header.of_architecture("block_count")
    if not isinstance(layers, int):
        return False
    first = layers - draft_head_count(header)
    return f"blk.{first}.nextn.eh_proj.weight" in header.tensor_bytes
