"""Files of models that draw: what is recognised, which parts are missing, what is refused."""

import json
import os
import struct
from pathlib import Path

import pytest

from llm_backend.app.served_models import build_served_models
from llm_backend.backends.local.image_setup import LocalImageSetup, local_parameters
from llm_backend.model_files import (
    HeaderError,
    find_model_file,
    is_diffusion_file,
    list_model_files,
    read_diffusion,
)
from llm_backend.settings import Settings, SettingsError
from tests.tiny_diffusion import write_tiny_diffusion

FLUX = ("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight")
UNET = ("model.diffusion_model.input_blocks.0.0.weight",)
TENSORS = {
    "Stable Diffusion": (*UNET, "cond_stage_model.transformer.text_model.final_layer_norm.bias"),
    "Stable Diffusion XL": (
        *UNET, "model.diffusion_model.label_emb.0.0.bias",
        "conditioner.embedders.0.transformer.a", "conditioner.embedders.1.model.ln_final.bias",
    ),
    "Stable Diffusion 3": ("joint_blocks.0.context_block.attn.qkv.weight",),
    "FLUX.1": FLUX,
    "FLUX.2": (*FLUX, "double_stream_modulation_img.lin.weight"),
    "Qwen-Image": ("transformer_blocks.0.img_mod.1.weight",),
    "Z-Image": ("model.diffusion_model.cap_embedder.0.weight",),
}  # fmt: skip


def write_safetensors(path: Path, *names: str, more: bytes = b"") -> Path:
    entry = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": {}, **dict.fromkeys(names, entry)}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + more)
    return path


@pytest.mark.parametrize(("family", "names"), TENSORS.items())
def test_a_family_is_recognized_by_the_names_of_tensors(tmp_path, family, names):
    path = write_safetensors(tmp_path / "one.safetensors", *names, more=bytes(8))
    read = read_diffusion(path)

    assert is_diffusion_file(path)
    assert read.family == family
    assert read.is_network_only == (names[0] not in UNET)
    assert "vae" in read.missing
    assert read.parameters == 4 * len(names)
    assert list_model_files(tmp_path) == [find_model_file("one.safetensors", tmp_path)] == [path]


def test_parts_in_a_checkpoint_are_not_missing_and_a_small_autoencoder_does(tmp_path):
    whole = read_diffusion(write_tiny_diffusion(tmp_path / "whole.gguf"))
    part = read_diffusion(write_tiny_diffusion(tmp_path / "part.gguf", without="tae."))

    assert (whole.held, whole.missing, whole.side_step) == (("vae", "clip_l"), (), 64)
    assert part.missing == part.lacks(["clip_l"]) == ("vae",)
    assert part.lacks(["taesd"]) == ()


def test_safetensors_cut_anywhere_are_refused(tmp_path):
    whole = write_safetensors(tmp_path / "whole.safetensors", *FLUX, more=bytes(8)).read_bytes()
    cut = tmp_path / "cut.safetensors"

    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(HeaderError):
            read_diffusion(cut)
    assert list_model_files(tmp_path) == [tmp_path / "whole.safetensors"]


@pytest.mark.parametrize("name", ["one.safetensors", "one.gguf"])
def test_a_repaired_file_is_recognized_although_its_size_and_time_are_the_same(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".gguf"):
        write_tiny_diffusion(path)
    else:
        write_safetensors(path, *FLUX, more=bytes(8))
    whole, state = path.read_bytes(), path.stat()
    times = (state.st_atime_ns, state.st_mtime_ns)
    path.write_bytes(whole[:8].ljust(len(whole), b"\xff"))
    os.utime(path, ns=times)

    assert not is_diffusion_file(path)
    path.write_bytes(whole)
    os.utime(path, ns=times)
    assert is_diffusion_file(path)


def test_other_files_are_no_models_that_draw(tmp_path):
    vae = write_safetensors(tmp_path / "vae.safetensors", "decoder.conv_in.weight", more=bytes(8))
    cut = write_safetensors(tmp_path / "cut.safetensors", *FLUX)
    (tmp_path / "text.safetensors").write_text("no header")

    assert list_model_files(tmp_path) == []
    network = write_safetensors(tmp_path / "network.safetensors", *UNET, more=bytes(8))
    for path, reason in (
        (network, "has no clip_l, which a checkpoint of Stable Diffusion has to hold"),
        (vae, "no network that draws"),
        (cut, "cut short"),
        (tmp_path / "text.safetensors", "not a safetensors file"),
    ):
        with pytest.raises(HeaderError, match=reason):
            read_diffusion(path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"vae": "gone.gguf"}, r"Cannot read the file gone.gguf \(`vae`"),
        ({"parameters": {"cfg": 1}}, "`cfg` is none of"),
        ({"parameters": {"sampler_name": "Euler a"}}, "`sampler_name` must be one of euler"),
        ({"parameters": {"seed": 1.5}}, "`seed` must be a number from 0"),
        ({"parameters": {"denoising_strength": 2}}, "`denoising_strength` must be a number"),
        (
            {"parameters": {"width": 500, "height": 500}},
            r"`image_models.tiny.parameters`: `width` must be a multiple of 64, not 500",
        ),
        ({"parameters": {"negative_prompt": "(a:.)"}}, "`negative_prompt` cannot be used: `.`"),
    ],
)
def test_settings_that_a_model_cannot_use_are_refused_at_the_start(tmp_path, options, reason):
    path = write_tiny_diffusion(tmp_path / "tiny.gguf")
    settings = Settings(models=(str(path),), image_models={"tiny": options})

    with pytest.raises(SettingsError, match=reason):
        build_served_models(settings)


@pytest.mark.parametrize(
    "fields",
    [
        {"data_offsets": [0, "9"]},
        {"data_offsets": [0, None]},
        {"data_offsets": [0, -8]},
        {"data_offsets": [8]},
        {"shape": ["2", 2]},
        {"shape": [2.5]},
        {"shape": None},
        {"shape": [1] * 9},
    ],
)
def test_a_header_with_other_values_than_counts_is_broken(tmp_path, fields):
    entry = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8], **fields}
    header = json.dumps({FLUX[0]: entry}).encode()
    path = tmp_path / "one.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))

    assert list_model_files(tmp_path) == []
    with pytest.raises(HeaderError, match=r"header of .* is broken"):
        read_diffusion(path)


def test_memory_is_planned_for_the_largest_image_that_is_allowed(tmp_path):
    path = write_tiny_diffusion(tmp_path / "tiny.gguf")

    def setup(pixels: int, **parameters: int) -> LocalImageSetup:
        options = {"tiny": {"pixels_limit": pixels, "parameters": parameters}}
        settings = Settings(models=(str(path),), image_models=options, drawn_pixels_limit=1 << 20)
        found = build_served_models(settings)[0].image_setup
        assert found is not None
        return found

    small, large, wide = setup(1 << 19), setup(1 << 30), setup(1 << 19, width=2048)
    assert (large.pixels_limit, small.pixels_limit) == (1 << 20, 1 << 19)
    assert large.memory_bytes - small.memory_bytes == 2500 * (1 << 19)
    assert wide.memory_bytes == large.memory_bytes  # its own images have 2048 x 512 pixels


def test_images_of_other_processes_wait_as_long_as_those_of_this_one(tmp_path):
    path = write_tiny_diffusion(tmp_path / "tiny.gguf")
    settings = Settings(models=(str(path),), queue_deadline_s=5, drawing_deadline_s=700)

    assert build_served_models(settings)[0].engine.queue_deadline_s == 700


def test_parameters_have_the_names_of_image_servers():
    parameters = local_parameters({"cfg_scale": 3, "sampler_name": "dpm++2m", "width": 512})

    assert (parameters.cfg_scale, parameters.sampler_name, parameters.width) == (3, "dpm++2m", 512)
