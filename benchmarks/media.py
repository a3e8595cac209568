"""Voices, Whisper and images of the served process, beside their libraries on the same input.

The models are those of the tests: small, with weights that are random or make tones. So what a
request costs besides its model is seen at its largest, and a large model's share is computed from
it. Each row has one thread. Rows whose extra is not installed are left out, with a sentence.
"""

import argparse
import base64
import io
import json
import os
import statistics
import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.serve_start import resident_mb
from benchmarks.speech import BYTES_A_SECOND, chat_beside
from llm_backend.extras import install_command, is_installed
from tests.audio_files import wav_file
from tests.engine.pocket_voice import write_pocket_voice
from tests.engine.speech_reference import ReferenceVoice
from tests.serving import Served, serve
from tests.tiny_diffusion import HAS_LIBRARY, write_tiny_diffusion
from tests.tone_voice import write_voice
from tests.whisper_models import BASE, TINIEST, Shape, write_whisper

SENTENCE = "One " + "two three four one " * 9 + "two. "  # words that the voice of tones knows
SENTENCES = 10
LONG_SENTENCES = 2  # of a voice that ends none before its limit
RECORDING_S = 120
IMAGE_STEPS, SIDE = 2, 64
AT_ONCE = 8
IMAGES = """
  tiny:
    steps: {medium: %d}
    parameters: {cfg_scale: 1, seed: 7, width: %d, height: %d}
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model. `alone` computes the input by the library; `ask` returns the form or the body of a
    request; `units_of` the seconds of audio, or the images, of an answer."""

    name: str
    unit: str
    path: str
    alone: Callable[[], None]
    ask: Callable[[], dict[str, Any]]
    units_of: Callable[[bytes], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--rows", help="of onnx, gguf, whisper, whisper_base, image; separated by commas"
    )
    parser.add_argument("--quick", action="store_true", help="without the last two columns")
    options = parser.parse_args()
    wanted = options.rows.split(",") if options.rows else list(ROWS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row for one in wanted if (row := ROWS[one](folder)) is not None]
        with serve_in(folder / "without", {"models": ["builtin"]}) as server:
            without_mb = resident_mb(server.process.pid)
        with serve_in(folder, settings(folder, rows)) as server:
            resting_mb = resident_mb(server.process.pid)
            workers = len(server.workers())
            print(
                f"At rest the server holds {resting_mb:.0f} MB with these models and "
                f"{without_mb:.0f} MB without; {workers} engine processes run, for `models`.\n"
            )
            show(server, rows, options.rounds, is_quick=options.quick)


def onnx(folder: Path) -> Row | None:
    if not has_extra("voices", "ONNX voices"):
        return None
    import sherpa_onnx

    model = write_voice(folder / "models" / "someone" / "tones")
    files: dict[str, Any] = {
        "model": str(model),
        "tokens": str(model.with_name("tokens.txt")),
        "lexicon": str(model.with_name("lexicon.txt")),
    }
    vits = sherpa_onnx.OfflineTtsVitsModelConfig(**files)
    voice = sherpa_onnx.OfflineTts(
        sherpa_onnx.OfflineTtsConfig(
            model=sherpa_onnx.OfflineTtsModelConfig(vits=vits, num_threads=1)
        )
    )
    return voice_row("ONNX voice", "tones", "low", lambda: voice.generate(SENTENCE * SENTENCES))


def gguf(folder: Path) -> Row | None:
    if not has_extra("audio", "GGUF voices"):
        return None
    files = write_pocket_voice(folder / "pocket", ends=False)
    with silent():
        voice = ReferenceVoice(*files)

    def speak() -> None:
        with silent():
            for _ in range(LONG_SENTENCES):
                voice.audio(SENTENCE.strip(), seed=1)

    return voice_row("GGUF voice", "pocket", "default", speak, sentences=LONG_SENTENCES)


def voice_row(
    name: str, model: str, voice: str, alone: Callable[[], object], *, sentences: int = SENTENCES
) -> Row:
    body = {
        "model": model,
        "voice": voice,
        "input": (SENTENCE * sentences).strip(),
        "response_format": "pcm",
    }
    return Row(
        name=name,
        unit="s of audio",
        path="audio/speech",
        alone=lambda: void(alone()),
        ask=lambda: {"json": body},
        units_of=lambda answer: len(answer) / BYTES_A_SECOND,
    )


def whisper(folder: Path) -> Row | None:
    return whisper_row(folder, "tiniest", TINIEST)


def whisper_base(folder: Path) -> Row | None:
    return whisper_row(folder, "base", BASE)


def whisper_row(folder: Path, name: str, shape: Shape) -> Row | None:
    """Transcription by a model of a shape, which says the same of each window."""
    if not has_extra("transcription", "Whisper models"):
        return None
    import numpy as np
    from pywhispercpp.model import Model

    path = write_whisper(folder / "models" / f"{name}.bin", shape=shape)
    recording = wav_file(RECORDING_S)
    with silent():
        model = Model(str(path), n_threads=1, print_progress=False)

    def transcribe() -> None:
        with wave.open(io.BytesIO(recording)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        with silent():
            heard = samples.astype(np.float32) / np.float32(32768)
            model.transcribe(heard, language="de")  # else the server detects it by a further pass

    return Row(
        name=f"Whisper {name}",
        unit="s of audio",
        path="audio/transcriptions",
        alone=transcribe,
        ask=lambda: {
            "data": {"model": name, "stream": "true", "language": "de"},
            "files": {"file": ("a.wav", recording, "audio/wav")},
        },
        units_of=lambda _: RECORDING_S,
    )


def image_row(folder: Path) -> Row | None:
    if not HAS_LIBRARY:
        print(f"Images are left out: {install_command('draw')}")
        return None
    import stable_diffusion_cpp

    path = write_tiny_diffusion(folder / "models" / "tiny.gguf")
    model = stable_diffusion_cpp.StableDiffusion(model_path=str(path), n_threads=1, verbose=False)

    def draw() -> None:
        (image,) = model.generate_image(
            prompt="a cat", width=SIDE, height=SIDE, sample_steps=IMAGE_STEPS, cfg_scale=1.0,
            seed=7,
        )  # fmt: skip
        image.save(io.BytesIO(), "png")

    body = {"model": "tiny", "prompt": "a cat", "stream": True, "partial_images": 1}
    return Row(
        name="image",
        unit="image",
        path="images/generations",
        alone=draw,
        ask=lambda: {"json": body},
        units_of=images_in,
    )


ROWS: dict[str, Callable[[Path], Row | None]] = {
    "onnx": onnx,
    "gguf": gguf,
    "whisper": whisper,
    "whisper_base": whisper_base,
    "image": image_row,
}


def has_extra(extra: str, models: str) -> bool:
    if not is_installed(extra):
        print(f"{models} are left out: {install_command(extra)}")
        return False
    return True


def images_in(answer: bytes) -> float:
    events = [json.loads(one[6:]) for one in answer.splitlines() if one.startswith(b"data: {")]
    done = [one for one in events if one["type"] == "image_generation.completed"]
    assert base64.b64decode(done[0]["b64_json"]).startswith(b"\x89PNG")
    return len(done)


def settings(folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {"models": ["builtin"], "models_dir": str(folder / "models")}
    found["serve_models_folder"] = True
    if any(row.name == "GGUF voice" for row in rows):
        files = {"path": "pocket/pocket.gguf", "mmproj": "pocket/mmproj-pocket.gguf"}
        found["models"].append(
            {"id": "pocket", **{key: str(folder / path) for key, path in files.items()}}
        )
    found["image_models"] = yaml.safe_load(IMAGES % (IMAGE_STEPS, SIDE, SIDE))
    return found


@contextmanager
def serve_in(folder: Path, config: dict[str, Any]) -> Iterator[Served]:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"threads": 1}))
    with serve(folder / "data", "--config", str(folder / "config.yaml"), forks=False) as server:
        yield server


def show(server: Served, rows: Sequence[Row], rounds: int, *, is_quick: bool) -> None:
    print(
        "| model | input | library alone, CPU s | served, CPU s | ratio | more for a unit, CPU ms "
        "| units a s | first byte, s | 8 at once / in turn | chat beside |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        request(server, row)  # loads the model
        row.alone()
        pairs = [measure(server, row) for _ in range(rounds)]
        alone_s, served_s, elapsed_s, first_s, units = (
            statistics.median(values) for values in zip(*pairs, strict=True)
        )
        others = "– | –"
        if not is_quick:
            port = int(server.address.rpartition(":")[2])
            beside = chat_beside(port, partial(request, server, row))
            others = f"{together(server, row):.2f} | {beside:.2f}"
        print(
            f"| {row.name} | {units:.0f} {row.unit} | {alone_s:.2f} | {served_s:.2f} "
            f"| {served_s / alone_s:.2f} | {1000 * (served_s - alone_s) / units:.1f} "
            f"| {units / elapsed_s:.1f} | {first_s:.3f} | {others} |",
            flush=True,
        )


def measure(server: Served, row: Row) -> tuple[float, float, float, float, float]:
    """Processor seconds alone and served, seconds of the answer and until its first byte, units."""
    began_s = time.process_time()
    row.alone()
    alone_s = time.process_time() - began_s
    before_s = tree_cpu_s(server)
    first_s, elapsed_s, units = request(server, row)
    return alone_s, tree_cpu_s(server) - before_s, elapsed_s, first_s, units


def request(server: Served, row: Row) -> tuple[float, float, float]:
    """Seconds until the first byte of the body and until the last, and the units."""
    began_s, pieces = time.perf_counter(), []
    first_s = 0.0
    url = f"{server.base_url}/{row.path}"
    with httpx.stream("POST", url, timeout=600, **row.ask()) as answer:
        for piece in answer.iter_raw():
            first_s = first_s or time.perf_counter() - began_s
            pieces.append(piece)
    assert answer.status_code == 200, b"".join(pieces)
    return first_s, time.perf_counter() - began_s, row.units_of(b"".join(pieces))


def together(server: Served, row: Row) -> float:
    began_s = time.perf_counter()
    for _ in range(AT_ONCE):
        request(server, row)
    in_turn_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: request(server, row), range(AT_ONCE)))
    return (time.perf_counter() - began_s) / in_turn_s


def tree_cpu_s(server: Served) -> float:
    """Processor seconds of the server, its workers and its children that have ended."""
    ticks = 0
    for pid in (server.process.pid, *server.workers()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
        ticks += sum(map(int, fields))
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def silent() -> Iterator[None]:
    """Drops what native code prints meanwhile."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def void(_: object) -> None:
    """Drops what a library returns."""


if __name__ == "__main__":
    main()
