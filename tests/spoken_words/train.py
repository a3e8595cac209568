"""Trains the recognizer of `spoken_words`, and writes its file.

    python -m tests.spoken_words.train [--steps 4000] [--utterances 10000]

Needs `espeak-ng`, `torch`, `torchaudio` and `kaldi-native-fbank`, which computes the features as
sherpa-onnx does; no test needs the last three. It takes a quarter of an hour on one core.
"""

import argparse
import random
import subprocess
from collections.abc import Sequence
from typing import Any

import kaldi_native_fbank
import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from tests.onnx_files import FLOAT, INT64, integer, integers, model, node, tensor, value
from tests.spoken_words import FOLDER, TOKENS, WORDS, count_word_errors

Utterance = tuple[list[str], NDArray[np.float32]]
"""Words and their features: [frames, 80]."""

_RATE_HZ = 16_000
_MELS, _WIDTH, _BLOCKS, _KERNEL = 80, 128, 6, 11
_BATCH = 16
_BLANK = len(TOKENS)
_VARIANTS = ("", *(f"+f{one}" for one in range(1, 6)), *(f"+m{one}" for one in range(1, 9)))
_VOICES = [language + variant for language in ("en-us", "en-gb") for variant in _VARIANTS]
_SPEED, _PITCH = 175, 50  # the program's own
_FRAMES_PER_TOKEN = 4
_MASKED_MELS = 8


def main() -> None:
    """Trains for a number of steps, and prints the share of wrong words in other utterances."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--utterances", type=int, default=10000)
    options = parser.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    trained = [_utterance(rng) for _ in tqdm(range(options.utterances), "utterances")]
    recognizer = Recognizer()
    _train(recognizer, sorted(trained, key=lambda one: len(one[1])), options.steps, rng)
    held_out = [_utterance(rng) for _ in range(400)]
    errors = sum(
        count_word_errors(words, recognizer.hear(features)) for words, features in held_out
    )
    tqdm.write(f"words that are wrong: {errors} of {sum(len(words) for words, _ in held_out)}")
    lines = [f"{token} {at}\n" for at, token in enumerate((*TOKENS, "<blk>"))]
    (FOLDER / "tokens.txt").write_text("".join(lines), encoding="utf-8")
    (FOLDER / "model.onnx").write_bytes(recognizer.onnx_file())


class Recognizer(nn.Module):
    """Convolutions: two that keep every second frame, then blocks over some 0.4 s each."""

    def __init__(self) -> None:
        super().__init__()
        self.mels = nn.Conv1d(_MELS, _WIDTH, 5, 2, 2)
        self.halves = nn.Conv1d(_WIDTH, _WIDTH, 5, 2, 2)
        self.depths = nn.ModuleList(
            nn.Conv1d(_WIDTH, _WIDTH, _KERNEL, 1, _KERNEL // 2, groups=_WIDTH)
            for _ in range(_BLOCKS)
        )
        self.points = nn.ModuleList(nn.Conv1d(_WIDTH, _WIDTH, 1) for _ in range(_BLOCKS))
        self.tokens = nn.Conv1d(_WIDTH, len(TOKENS) + 1, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns logprobs of tokens: [utterances, frames / 4, tokens]."""
        hidden = functional.relu(self.halves(functional.relu(self.mels(features))))
        for depth, point in zip(self.depths, self.points, strict=True):
            hidden = hidden + functional.relu(point(depth(hidden)))
        return self.tokens(hidden).transpose(1, 2).log_softmax(-1)

    @torch.no_grad()
    def hear(self, features: NDArray[np.float32]) -> list[str]:
        """Returns the words of an utterance: [frames, 80] features."""
        likeliest = self(torch.from_numpy(features.T)[None])[0].argmax(-1).tolist()
        pairs = zip(likeliest, [_BLANK, *likeliest], strict=False)
        heard = [TOKENS[one] for one, last in pairs if one not in (last, _BLANK)]
        return [token.removeprefix("▁") for token in heard]

    def onnx_file(self) -> bytes:
        """Returns the file of the model, with weights of 16 bits."""
        nodes: list[bytes] = []
        constants = [
            tensor("subsampling", np.array([4], "<i8")),
            tensor("rounding", np.array([3], "<i8")),
        ]

        def convolve(layer: Any, source: str, name: str) -> str:
            for part in ("weight", "bias"):
                values = getattr(layer, part).detach().numpy().astype("<f2")
                constants.append(tensor(f"{name}.{part}.half", values))
                nodes.append(
                    node("Cast", [f"{name}.{part}.half"], f"{name}.{part}", integer("to", FLOAT))
                )
            nodes.append(
                node(
                    "Conv",
                    [source, f"{name}.weight", f"{name}.bias"],
                    name,
                    integers("strides", list(layer.stride)),
                    integers("pads", list(layer.padding) * 2),
                    integer("group", layer.groups),
                )
            )
            return name

        def activate(source: str) -> str:
            nodes.append(node("Relu", [source], f"{source}.active"))
            return f"{source}.active"

        hidden = activate(convolve(self.mels, "features", "mels"))
        hidden = activate(convolve(self.halves, hidden, "halves"))
        for at, (depth, point) in enumerate(zip(self.depths, self.points, strict=True)):
            change = activate(
                convolve(point, convolve(depth, hidden, f"depth.{at}"), f"point.{at}")
            )
            nodes.append(node("Add", [hidden, change], f"block.{at}"))
            hidden = f"block.{at}"
        logits = convolve(self.tokens, hidden, "tokens")
        nodes += [
            node("Transpose", [logits], "logits", integers("perm", [0, 2, 1])),
            node("LogSoftmax", ["logits"], "logprobs", integer("axis", -1)),
            node("Add", ["length", "rounding"], "rounded"),
            node("Div", ["rounded", "subsampling"], "logprobs_length"),
        ]
        metadata = {
            "vocab_size": str(len(TOKENS)),
            "normalize_type": "per_feature",
            "subsampling_factor": str(_FRAMES_PER_TOKEN),
            "model_type": "EncDecCTCModelBPE",
        }
        inputs = [value("features", FLOAT, 3), value("length", INT64, 1)]
        outputs = [value("logprobs", FLOAT, 3), value("logprobs_length", INT64, 1)]
        return model(nodes, constants, inputs, outputs, metadata)


def _train(
    recognizer: Recognizer, utterances: Sequence[Utterance], steps: int, rng: random.Random
) -> None:
    optimizer = torch.optim.AdamW(recognizer.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    starts = range(0, len(utterances), _BATCH)
    progress = tqdm(range(steps), "steps")
    for _ in progress:
        start = rng.choice(starts)
        batch = utterances[start : start + _BATCH]
        loss = _loss(recognizer, batch, rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(recognizer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")


def _loss(recognizer: Recognizer, batch: Sequence[Utterance], rng: random.Random) -> torch.Tensor:
    lengths = [len(features) for _, features in batch]
    padded = torch.zeros(len(batch), _MELS, max(lengths))
    for row, (_, features) in zip(padded, batch, strict=True):
        row[:, : len(features)] = torch.from_numpy(features.T)
        first = rng.randint(0, _MELS - _MASKED_MELS)
        row[first : first + rng.randint(0, _MASKED_MELS)] = 0
    targets = [[TOKENS.index(f"▁{word}") for word in words] for words, _ in batch]
    return functional.ctc_loss(
        recognizer(padded).transpose(0, 1),
        torch.tensor([token for target in targets for token in target]),
        torch.tensor([-(-length // _FRAMES_PER_TOKEN) for length in lengths]),
        torch.tensor([len(target) for target in targets]),
        blank=_BLANK,
        zero_infinity=True,
    )


def _utterance(rng: random.Random) -> Utterance:
    """Returns up to seven words by some voice, with silence around them and some noise."""
    words = [rng.choice(WORDS) for _ in range(rng.randint(1, 7))]
    text = rng.choice((" ", " ", ", ")).join(words) + rng.choice(("", ".", "."))
    is_plain = rng.random() < 0.4
    speed = _SPEED if is_plain else rng.randint(130, 210)
    pitch = _PITCH if is_plain else rng.randint(35, 65)
    silences = [np.zeros(rng.randint(0, limit), np.float32) for limit in (6000, 12000)]
    audio = np.concatenate(
        [silences[0], _speak(text, rng.choice(_VOICES), speed, pitch), silences[1]]
    )
    audio = np.pad(audio, (0, max(0, _RATE_HZ - len(audio))))
    if rng.random() < 0.7:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(
            0, 10 ** rng.uniform(-4.5, -2), len(audio)
        )
        audio += noise.astype(np.float32)
    return words, _features(audio)


def _speak(text: str, voice: str, speed: int, pitch: int) -> NDArray[np.float32]:
    program = (
        "espeak-ng",
        "-b",
        "1",
        "-v",
        voice,
        "-s",
        str(speed),
        "-p",
        str(pitch),
        "--stdin",
        "--stdout",
    )
    spoken = subprocess.run(program, input=text.encode(), capture_output=True, check=True).stdout
    rate_hz, samples = int.from_bytes(spoken[24:28], "little"), spoken[44:]
    values = np.frombuffer(samples[: len(samples) // 2 * 2], "<i2").astype(np.float32) / 32768
    audio: NDArray[np.float32] = torchaudio.functional.resample(
        torch.from_numpy(values), rate_hz, _RATE_HZ
    ).numpy()
    return audio


def _features(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the features that sherpa-onnx computes for NeMo's models: [frames, 80]."""
    options = kaldi_native_fbank.FbankOptions()
    frame, mel = options.frame_opts, options.mel_opts
    frame.dither, frame.snip_edges, frame.samp_freq = 0, False, _RATE_HZ
    frame.window_type, frame.remove_dc_offset = "hann", False
    mel.num_bins, mel.low_freq, mel.high_freq, mel.is_librosa = _MELS, 0, 0, True
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(_RATE_HZ, audio.tolist())
    bank.input_finished()
    values = np.stack([bank.get_frame(at) for at in range(bank.num_frames_ready)])
    normalised: NDArray[np.float32] = (values - values.mean(0)) / (values.std(0) + 1e-5)
    return normalised.astype(np.float32)


if __name__ == "__main__":
    main()
