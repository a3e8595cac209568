"""Models that hear words in tones: NeMo's transducers and CTC models in the form of sherpa-onnx.

Each word is a tone; it is heard once, until another one follows. With `seed` the weights are random
numbers instead, as are the words.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.onnx_files import FLOAT, INT32, INT64, integers, model, node, tensor, value

__all__ = ["FRAME_S", "WORDS", "write_recognizer"]

WORDS: Mapping[str, int] = {"▁one": 400, "▁two": 800, "▁three": 1600, ".": 3000}
"""Tokens, and the frequency of each."""

FRAME_S = 0.08
_SUBSAMPLING = 8
_FEATURES = 80
_DURATIONS = 5  # of a token, from 0 to 4 frames; a TDT model always says 2
_NEVER = -1000.0
_WIDTH = len(WORDS) + 1  # of everything between the parts: a number for each token
_BANDS = (10, 20, 38, 54)  # features in which the tones are loudest
_LOUD = -9.0  # the mean of a tone and its neighbours is greater, others are less


def write_recognizer(
    folder: Path, *, kind: str = "tdt", seed: int | None = None, **metadata: str
) -> Path:
    """Writes a model of the `kind` `tdt`, `rnnt` or `ctc` to a new folder, and returns its main
    file."""
    folder.mkdir(parents=True)
    lines = [f"{token} {at}\n" for at, token in enumerate((*WORDS, "<blk>"))]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    described = {
        "vocab_size": str(len(WORDS)),
        "normalize_type": "" if seed is None else "per_feature",
        "subsampling_factor": str(_SUBSAMPLING),
        "model_type": "EncDecCTCModelBPE" if kind == "ctc" else "EncDecRNNTBPEModel",
        "pred_rnn_layers": "1",
        "pred_hidden": "2",
        "url": f"https://example.org/tones-{kind}",
        **metadata,
    }
    if kind == "ctc":
        path = folder / "model.onnx"
        path.write_bytes(_encoder(seed, described, is_whole=True))
        return path
    path = folder / "encoder.onnx"
    path.write_bytes(_encoder(seed, described, is_whole=False))
    path.with_name("decoder.onnx").write_bytes(_decoder())
    path.with_name("joiner.onnx").write_bytes(_joiner(_DURATIONS if kind == "tdt" else 0))
    return path


def _encoder(seed: int | None, metadata: dict[str, str], *, is_whole: bool) -> bytes:
    """Returns what makes a number for each token of 8 frames of features."""
    weights = np.zeros((_WIDTH, _FEATURES, _SUBSAMPLING))
    bias = np.zeros(_WIDTH)
    if seed is None:
        for word, band in enumerate(_BANDS):
            weights[word, band - 1 : band + 2] = 1 / (3 * _SUBSAMPLING)
        bias[-1] = _LOUD
    else:
        weights = np.random.default_rng(seed).normal(0, 0.2, weights.shape)
    frames = "heard" if is_whole else "encoded"
    nodes = [
        node("Conv", ["features", "weights", "bias"], frames, integers("strides", [_SUBSAMPLING])),
        node("Div", ["length", "subsampling"], "encoded_length"),
    ]
    if is_whole:
        nodes.append(node("Transpose", ["heard"], "encoded", integers("perm", [0, 2, 1])))
    constants = [
        tensor("weights", weights.astype("<f4")),
        tensor("bias", bias.astype("<f4")),
        tensor("subsampling", np.array([_SUBSAMPLING], "<i8")),
    ]
    inputs = [value("features", FLOAT, 3), value("length", INT64, 1)]
    outputs = [value("encoded", FLOAT, 3), value("encoded_length", INT64, 1)]
    return model(nodes, constants, inputs, outputs, metadata)


def _decoder() -> bytes:
    """Returns what keeps the last token from being heard again."""
    table = _NEVER * np.eye(_WIDTH)
    table[-1] = 0
    nodes = [
        node("Gather", ["table", "token"], "row"),
        node("Transpose", ["row"], "said", integers("perm", [0, 2, 1])),
        node("Identity", ["length"], "said_length"),
        node("Identity", ["state"], "next_state"),
        node("Identity", ["cell"], "next_cell"),
    ]
    inputs = [
        value("token", INT32, 2),
        value("length", INT32, 1),
        value("state", FLOAT, 3),
        value("cell", FLOAT, 3),
    ]
    outputs = [
        value("said", FLOAT, 3),
        value("said_length", INT32, 1),
        value("next_state", FLOAT, 3),
        value("next_cell", FLOAT, 3),
    ]
    return model(nodes, [tensor("table", table.astype("<f4"))], inputs, outputs, {})


def _joiner(durations: int) -> bytes:
    numbers = np.zeros((1, _WIDTH + durations, 1))
    numbers[0, _WIDTH + 2 : _WIDTH + 3] = 1
    shape = np.array([1, 1, 1, _WIDTH + durations], "<i8")
    nodes = [
        node("Add", ["encoded", "said"], "both"),
        node("Pad", ["both", "padding"], "padded"),
        node("Add", ["padded", "durations"], "numbers"),
        node("Reshape", ["numbers", "shape"], "logits"),
    ]
    constants = [
        tensor("padding", np.array([0, 0, 0, 0, durations, 0], "<i8")),
        tensor("durations", numbers.astype("<f4")),
        tensor("shape", shape),
    ]
    inputs = [value("encoded", FLOAT, 3), value("said", FLOAT, 3)]
    outputs: Sequence[bytes] = [value("logits", FLOAT, 4, _WIDTH + durations)]
    return model(nodes, constants, inputs, outputs, {})
