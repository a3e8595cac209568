"""Tensors of a tiny Granite speech: a conformer encoder, and a q-former as its projector.

Names and shapes are those of `transformers`.
"""

from collections.abc import Iterator

Tensor = tuple[str, tuple[int, ...]]
"""The name and the shape of a tensor."""

SIZE, FORWARD, LAYERS, HEADS = 40, 160, 2, 2
MELS = 160
"""Two frames of 80 make one of the encoder, which lasts 20 ms."""
BLOCK_FRAMES = 40
"""The frames that attend to each other."""
POSITIONS = 64
"""The greatest distance of two frames that has an embedding."""
KERNEL, EXPANSION = 7, 2
CTC_TOKENS = 12
WINDOW_FRAMES, FRAMES_PER_EMBEDDING = 15, 5
QUERY_FORWARD = 80
PLUS_LAYERS, PLUS_JOINED = 3, [2]
"""Layers of the encoder of Granite speech Plus, and those whose output is joined to the last's."""


def tensors(text_size: int, *, is_plus: bool) -> Iterator[Tensor]:
    """The encoder's and the projector's tensors."""
    yield from _with_bias("model.encoder.input_linear", (SIZE, MELS))
    for layer in range(PLUS_LAYERS if is_plus else LAYERS):
        yield from _conformer(f"model.encoder.layers.{layer}.")
    yield from _with_bias("model.encoder.out", (CTC_TOKENS, SIZE))
    yield from _with_bias("model.encoder.out_mid", (SIZE, CTC_TOKENS))
    yield "model.projector.query", (1, WINDOW_FRAMES // FRAMES_PER_EMBEDDING, SIZE)
    yield from _with_bias("model.projector.qformer.layernorm", (SIZE,))
    for layer in range(LAYERS):
        block = f"model.projector.qformer.encoder.layer.{layer}."
        yield from _query_layer(block, frame_size=frame_size(is_plus=is_plus))
    yield from _with_bias("model.projector.linear", (text_size, SIZE))


def frame_size(*, is_plus: bool) -> int:
    """The size of a frame that the projector is given."""
    return SIZE * (1 + len(PLUS_JOINED)) if is_plus else SIZE


def _conformer(block: str) -> Iterator[Tensor]:
    for name in ("ff1", "ff2"):
        yield from _with_bias(f"{block}{name}.pre_norm", (SIZE,))
        yield from _with_bias(f"{block}{name}.up_proj", (FORWARD, SIZE))
        yield from _with_bias(f"{block}{name}.down_proj", (SIZE, FORWARD))
    yield from _with_bias(f"{block}attn.pre_norm", (SIZE,))
    yield f"{block}attn.to_q.weight", (SIZE, SIZE)
    yield f"{block}attn.to_kv.weight", (2 * SIZE, SIZE)
    yield from _with_bias(f"{block}attn.to_out", (SIZE, SIZE))
    yield f"{block}attn.rel_pos_emb.weight", (2 * POSITIONS + 1, SIZE // HEADS)
    inner = EXPANSION * SIZE
    yield from _with_bias(f"{block}conv.norm", (SIZE,))
    yield from _with_bias(f"{block}conv.up_conv", (2 * inner, SIZE, 1))
    yield f"{block}conv.depth_conv.conv.weight", (inner, 1, KERNEL)
    yield from _with_bias(f"{block}conv.batch_norm", (inner,))
    yield f"{block}conv.batch_norm.running_mean", (inner,)
    yield f"{block}conv.batch_norm.running_var", (inner,)
    yield from _with_bias(f"{block}conv.down_conv", (SIZE, inner, 1))
    yield from _with_bias(f"{block}post_norm", (SIZE,))


def _query_layer(block: str, *, frame_size: int) -> Iterator[Tensor]:
    for attention, inputs in (("attention", SIZE), ("crossattention", frame_size)):
        yield from _with_bias(f"{block}{attention}.attention.query", (SIZE, SIZE))
        yield from _with_bias(f"{block}{attention}.attention.key", (SIZE, inputs))
        yield from _with_bias(f"{block}{attention}.attention.value", (SIZE, inputs))
        yield from _with_bias(f"{block}{attention}.output.dense", (SIZE, SIZE))
        yield from _with_bias(f"{block}{attention}.output.LayerNorm", (SIZE,))
    yield from _with_bias(f"{block}intermediate_query.dense", (QUERY_FORWARD, SIZE))
    yield from _with_bias(f"{block}output_query.dense", (SIZE, QUERY_FORWARD))
    yield from _with_bias(f"{block}output_query.LayerNorm", (SIZE,))


def _with_bias(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
