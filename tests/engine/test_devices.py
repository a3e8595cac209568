"""The seam to GPUs: which devices are used, how layers are placed there, and a plan that fails."""

import logging
import signal
import sys
from pathlib import Path

import llama_cpp as native
import llama_cpp.mtmd_cpp as mtmd
import pytest
from msgspec.structs import replace

from llm_backend.engine import EngineClient
from llm_backend.engine.config import EngineFit
from llm_backend.engine.llama import LlamaLog, LlamaModel, LlamaVoiceModel, capture_log
from llm_backend.engine.llama.devices import NativeDevices, describe_devices, gpus
from llm_backend.engine.llama.projector import NativeProjector
from llm_backend.engine.llama.weights import DevicePlacement, _may_copy, load_weights
from llm_backend.engine.model import LoadError
from llm_backend.engine.process import device_list
from llm_backend.engine.process.device_list import find_devices
from llm_backend.engine.process.supervisor import Supervisor, _ProcessExit
from llm_backend.model_files import Device, read_header
from tests.engine.conftest import config
from tests.engine.fakes import load_command
from tests.engine.pocket_voice import write_pocket_voice
from tests.engine.projectors import write_eyes
from tests.logged import logged
from tests.model_shapes import Shape, write_shape

CPU, GPU, INTEGRATED = 0, 1, 2
TINY_MIXTURE = Shape(
    architecture="qwen3moe", layers=3, width=64, heads=4, kv_heads=2, head=16, forward=64,
    vocabulary=64, context=128, experts=4, used=2,
)  # fmt: skip


class FakeDevices:
    """Devices by kind and bus address."""

    def __init__(self, *devices: tuple[int, str]) -> None:
        self._devices = devices

    def __len__(self) -> int:
        return len(self._devices)

    def kind(self, number: int) -> int:
        return self._devices[number][0]

    def identity(self, number: int) -> str:
        return self._devices[number][1]

    def device(self, number: int) -> Device:
        return Device(
            name=f"D{number}",
            description="a chip ",
            total_bytes=8,
            free_bytes=7,
            shares_host=self.kind(number) == INTEGRATED,
        )


@pytest.mark.parametrize(
    ("devices", "used"),
    [
        ([(CPU, "")], []),
        ([(GPU, "a"), (GPU, "b"), (CPU, "")], ["D0", "D1"]),
        ([(GPU, "a"), (GPU, "a"), (GPU, "b")], ["D0", "D2"]),  # one card under two interfaces
        ([(INTEGRATED, "a"), (GPU, "b"), (CPU, "")], ["D1"]),
        ([(INTEGRATED, "a"), (CPU, "")], ["D0"]),
    ],
)
def test_gpus_are_those_that_the_native_code_uses(devices, used):
    assert [one.name for one in gpus(FakeDevices(*devices))] == used


def test_backend_names_the_devices_that_compute():
    library = FakeDevices((GPU, "a"), (CPU, ""))

    assert describe_devices(on_gpu=True, library=library) == "D0 (a chip)"
    assert describe_devices(on_gpu=False, library=library) == "D1 (a chip)"
    assert describe_devices(on_gpu=False).startswith("CPU (")


@pytest.mark.parametrize(
    ("layers", "placed"), [(0, ()), (1, ("output",)), (9, ("output", "blk.", "token_embd"))]
)
def test_weights_on_gpus_are_those_of_the_placed_layers(tiny_llama, monkeypatch, layers, placed):
    monkeypatch.setattr("llm_backend.engine.llama.devices.supports_gpus", lambda: True)
    model = LlamaModel(load_command(model_path=tiny_llama, gpu_layers=layers), LlamaLog())
    sizes = read_header(tiny_llama).tensor_bytes
    if "output.weight" in sizes:  # else the GPU has a copy of the token embeddings as well
        placed = tuple(one for one in placed if one != "token_embd")

    assert model.info().gpu_bytes == sum(
        size for name, size in sizes.items() if name.startswith(placed)
    )


@pytest.mark.parametrize(
    ("has_gpus", "layers", "uses"), [(True, None, True), (True, 0, False), (False, None, False)]
)
def test_projectors_compute_where_their_models_do(tmp_path, monkeypatch, has_gpus, layers, uses):
    found = []

    def init_projector(_path: bytes, _model: object, params: mtmd.mtmd_context_params) -> None:
        found.append(params.use_gpu)

    monkeypatch.setattr("llm_backend.engine.llama.devices.supports_gpus", lambda: has_gpus)
    monkeypatch.setattr(mtmd, "mtmd_init_from_file", init_projector)
    voice, codec = write_pocket_voice(tmp_path)
    eyes = load_command(projector_path=write_eyes(tmp_path / "eyes.gguf"), gpu_layers=layers)
    with pytest.raises(LoadError):
        NativeProjector(eyes, None, LlamaLog())
    with pytest.raises(LoadError):
        LlamaVoiceModel(
            load_command(model_path=voice, projector_path=codec, gpu_layers=layers), LlamaLog()
        )

    assert found == [uses, uses]


@pytest.fixture
def gpu(monkeypatch) -> None:
    """A build that computes on GPUs, as far as the engine asks."""
    monkeypatch.setattr("llm_backend.engine.llama.devices.supports_gpus", lambda: True)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("layers", [0, 9])
def test_model_on_a_gpu_learns_no_thread_count_and_copies_all_cells(
    tiny_llama, monkeypatch, layers
):
    monkeypatch.setattr("llm_backend.engine.pass_threads.usable_cores", lambda: 2)
    monkeypatch.setattr("llm_backend.engine.pass_threads._TINY_BYTES", 0)
    command = load_command(model_path=tiny_llama, gpu_layers=layers, threads=None)
    model = LlamaModel(command, LlamaLog())

    is_on_host = layers == 0
    assert (model.threads._tuner is not None) is is_on_host
    assert model.copies_only_used_cells is (is_on_host and model._cell_memory.is_lazy)


@pytest.mark.usefixtures("gpu")
def test_build_for_gpus_copies_no_weights():
    assert not _may_copy(load_command())


def test_build_for_the_processor_copies_weights():
    assert _may_copy(load_command())


@pytest.mark.parametrize(
    ("layers", "status", "lacks_memory"),
    [
        (None, -signal.SIGABRT, True),  # native code aborts without GPU memory
        (0, -signal.SIGABRT, False),
        (None, -signal.SIGSEGV, False),
        (None, 1, False),
    ],
)
def test_worker_that_aborts_with_a_gpu_lacked_memory(tiny_llama, layers, status, lacks_memory):
    supervisor = object.__new__(Supervisor)
    supervisor._config = config(tiny_llama, gpu_layers=layers)

    exit_ = _ProcessExit(status=status, was_killed_here=False)
    assert supervisor._lacked_memory(exit_, oom_kills_before=0) is lacks_memory


@pytest.mark.parametrize(
    ("libraries", "asks"),
    [
        (["libggml-base.so", "libggml-cpu.so"], False),
        (["libggml-base.so", "libggml-cpu-haswell.so", "libggml-cuda.so"], True),
        (["libggml-base.so.0", "libggml-vulkan.so.0"], True),
        ([], True),  # a static library reports nothing
    ],
)
def test_devices_are_listed_if_the_libraries_have_a_backend_for_them(
    tmp_path, monkeypatch, libraries, asks
):
    (tmp_path / "llama_cpp" / "lib").mkdir(parents=True)
    (tmp_path / "llama_cpp" / "__init__.py").touch()
    for name in libraries:
        (tmp_path / "llama_cpp" / "lib" / name).touch()
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    monkeypatch.delitem(sys.modules, "llama_cpp")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert device_list._has_gpu_backend() is asks


def test_devices_are_listed_if_the_libraries_are_elsewhere(monkeypatch):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(Path("elsewhere")))

    assert device_list._has_gpu_backend()


def test_another_process_lists_the_same_devices():
    assert [one.name for one in find_devices()] == [one.name for one in gpus(NativeDevices())]


def test_placement_keeps_the_experts_of_the_first_layers_in_host_memory(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "llm_backend.engine.llama")
    log = capture_log()
    path = write_shape(tmp_path / "mixture.gguf", TINY_MIXTURE)
    command = load_command(
        model_path=path, gpu_layers=4, host_experts=2, tensor_split=(4.0,), mmap=True
    )
    placement = DevicePlacement(command)
    model = load_weights(command, placement, loads_draft_head=False)
    assert model, log.pop_reason()
    native.llama_model_free(model)
    native.llama_log_set(native.llama_log_callback(), None)

    moved = [line.split()[1] for line in caplog.messages if "overridden to CPU" in line]
    assert sorted(set(moved)) == [
        f"blk.{layer}.ffn_{part}_exps.weight" for layer in (0, 1) for part in ("down", "gate", "up")
    ]


async def test_plan_that_does_not_hold_shrinks_once_and_is_reported(tiny_llama, caplog):
    smaller = EngineFit(
        slots=1, context_tokens=64, gpu_layers=0, tensor_split=(), host_experts=0, plan="less"
    )
    command = (sys.executable, "-m", "tests.engine.crashing_worker", "little-memory")
    large = config(tiny_llama, slots=8, context_tokens=1 << 20, command=command)
    async with EngineClient(replace(large, smaller_fit=smaller)) as engine:
        info = await engine.ready()

    assert (info.slots, info.context_tokens, info.plan) == (1, 64, "less")
    assert caplog.messages.count("engine_plan_shrunk") == 1
    assert "there is no memory for 8 slots" in logged(caplog)
