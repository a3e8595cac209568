"""Memory plans over a table of machines and models, and their bytes beside llama.cpp's own."""

import logging
import re
from pathlib import Path

import llama_cpp as native
import pytest

from llm_backend.engine.llama import capture_log
from llm_backend.model_files import (
    Device,
    Machine,
    ModelCosts,
    ModelShape,
    PlanRequest,
    footprint,
    model_costs,
    plan_memory,
    plan_smaller,
    read_header,
)
from llm_backend.model_files.layer_placement import LayerBytes, Placer
from tests.engine.gguf_models import write_delta_net
from tests.model_shapes import (
    EIGHT_BILLION,
    HALF_BILLION,
    MIXTURE_30_BILLION,
    MIXTURE_120_BILLION,
    SEVENTY_BILLION,
    Shape,
    write_shape,
)

GB = 10**9
SHAPES = {
    "0.5B": HALF_BILLION,
    "8B": EIGHT_BILLION,
    "30B": MIXTURE_30_BILLION,
    "70B": SEVENTY_BILLION,
    "120B": MIXTURE_120_BILLION,
}


def machine(host: int, *gpus: int, shares_host: bool = False) -> Machine:
    """A machine with `host` GB of memory and GPUs of `gpus` GB each, all free but a tenth."""
    return Machine(
        free_bytes=host * GB * 9 // 10,
        total_bytes=host * GB,
        devices=tuple(
            Device(
                name=f"GPU{number}",
                description="",
                total_bytes=size * GB,
                free_bytes=size * GB * 9 // 10,
                shares_host=shares_host,
            )
            for number, size in enumerate(gpus)
        ),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ModelCosts]:
    folder = tmp_path_factory.mktemp("shapes")
    return {name: costs_of(folder / f"{name}.gguf", shape) for name, shape in SHAPES.items()}


def costs_of(path: Path, shape: Shape) -> ModelCosts:
    return model_costs(read_header(write_shape(path, shape)))


# model, machine: slots, context, layers by GPU (the output is one), layers with experts elsewhere
TABLE = [
    ("0.5B", machine(8), 8, 32768, (), 0),
    ("8B", machine(16), 8, 4096, (), 0),
    ("8B", machine(24), 2, 20480, (), 0),
    ("8B", machine(64), 2, 81920, (), 0),
    ("8B", machine(16, 8), 2, 16384, (15,), 0),
    ("8B", machine(64, 24), 2, 40960, (33,), 0),
    ("8B", machine(64, 24, 24), 2, 114688, (16, 17), 0),
    ("8B", machine(512, *[80] * 8), 8, 131072, (4, 4, 4, 4, 4, 4, 4, 5), 0),
    ("8B", machine(64, 48, shares_host=True), 2, 81920, (33,), 0),
    ("30B", machine(64, 24), 2, 16384, (49,), 24),
    ("70B", machine(64, 24, 24), 2, 16384, (19, 19), 0),
    ("70B", machine(512, *[80] * 8), 8, 131072, (10, 10, 10, 10, 10, 10, 10, 11), 0),
    ("120B", machine(256, 80), 2, 24576, (47,), 22),
]


@pytest.mark.parametrize(("name", "machine", "slots", "context", "layers", "experts"), TABLE)
def test_plan_fits_the_model_to_the_machine(models, name, machine, slots, context, layers, experts):
    plan = plan_memory([models[name]], machine, PlanRequest())

    found = (plan.slots, plan.context_tokens, plan.placement.counts, plan.placement.host_experts)
    assert found == (slots, context, layers, experts)
    assert plan.host_bytes <= machine.total_bytes
    for device, used in zip(machine.devices, plan.device_bytes, strict=True):
        assert used <= device.free_bytes


def test_plan_keeps_the_values_of_the_settings(models):
    large, gpu = models["8B"], machine(64, 24)
    given = PlanRequest(slots=5, context_tokens=3000, gpu_layers=7)

    plan = plan_memory([large], gpu, given)

    assert (plan.slots, plan.context_tokens, plan.placement.gpu_layers) == (5, 3000, 7)
    assert plan_smaller([large], gpu, given) is None
    assert plan_memory([large], gpu, PlanRequest(slots=4)).slots == 4
    assert plan_memory([large], gpu, PlanRequest(context_tokens=32768)).context_tokens == 32768
    assert plan_memory([large], gpu, PlanRequest(gpu_layers=0)).device_bytes == ()
    everything = plan_memory([large], machine(64, 8), PlanRequest(gpu_layers=-1))
    assert everything.placement.gpu_layers == 33


def test_plan_uses_the_main_gpu_alone_without_a_split(models):
    two = machine(64, 8, 24)
    plan = plan_memory([models["8B"]], two, PlanRequest(split_mode="none", main_gpu=1))

    assert [one.name for one in plan.devices] == ["GPU1"]
    assert plan.placement.counts == (33,)


def test_plan_gives_cells_no_more_than_their_share(models):
    large, half = models["8B"], machine(64)
    shares = [
        plan_memory([large], half, PlanRequest(cells_share=share)) for share in (0.25, 0.5, 1.0)
    ]

    contexts = [plan.context_tokens for plan in shares]
    assert contexts == sorted(set(contexts))
    for share, plan in zip((0.25, 0.5, 1.0), shares, strict=True):
        assert plan.host.cells <= share * (half.free_bytes - large.weights)


def test_plan_counts_the_cells_of_a_draft_model(models):
    alone = plan_memory([models["8B"]], machine(64), PlanRequest())
    drafted = plan_memory([models["8B"], models["0.5B"]], machine(64), PlanRequest())

    assert drafted.context_tokens == alone.context_tokens
    cells = drafted.host.weights - alone.host.weights - models["0.5B"].weights
    assert cells > 2 * 32768 * 24 * 256 * 2  # slots, its own context, layers, numbers, bytes


def test_smaller_plan_takes_less_memory(models):
    for name, on, *_ in TABLE:
        plan = plan_memory([models[name]], on, PlanRequest())
        smaller = plan_smaller([models[name]], on, PlanRequest())
        assert smaller is None or (
            smaller.total_bytes < plan.total_bytes or smaller.placement != plan.placement
        )
    assert smaller is not None


def test_plan_of_a_model_that_never_fits_is_the_plain_default(models):
    plan = plan_memory([models["70B"]], machine(16), PlanRequest())

    assert (plan.slots, plan.context_tokens) == (8, 4096)
    assert plan.host_bytes > 16 * GB


def test_weights_on_devices_are_those_of_the_last_layers_without_experts_of_the_host(models):
    model = models["30B"]
    last = model.layers[-1]

    assert model.device_weights(0, 0) == 0
    assert model.device_weights(2, 0) == model.output + last.weights + last.experts
    assert model.device_weights(2, len(model.layers)) == model.output + last.weights
    assert model.device_weights(None, 0) == model.weights - model.input


def test_placement_follows_a_given_split():
    placer = Placer(layers=[LayerBytes(layer=10)] * 8, capacities=[100, 100], split=[3, 1])

    assert placer.place().counts == (6, 2)
    assert placer.place_last(4).counts == (3, 1)
    assert placer.device_bytes(placer.place()) == (60, 20)


def test_placement_moves_experts_before_layers():
    layers = [*[LayerBytes(layer=10, experts=100)] * 4, LayerBytes(layer=10)]

    placements = [
        Placer(layers=layers, capacities=[free]).place() for free in (450, 260, 50, 25, 9)
    ]

    found = [(one.gpu_layers, one.host_experts) for one in placements]
    assert found == [(5, 0), (5, 2), (5, 4), (2, 4), (0, 4)]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "shape",
    [
        ModelShape(context_tokens=4096),
        ModelShape(context_tokens=16384, slots=2),
        ModelShape(context_tokens=8192, slots=2, has_flash_attention=False),
        ModelShape(context_tokens=4096, cache_type="q8_0"),
        ModelShape(context_tokens=16384, slots=2, cache_type="q4_0"),
        ModelShape(context_tokens=4096, cache_type="f32"),
        ModelShape(context_tokens=4096, batch_tokens=1024),
        ModelShape(context_tokens=4096, kv_unified=True),
    ],
)
def test_footprint_is_within_five_percent_of_the_native_estimate(tmp_path, caplog, name, shape):
    path = write_shape(tmp_path / "shape.gguf", SHAPES[name])
    weights, cells, compute = native_bytes(path, shape, caplog)
    ours = footprint(read_header(path), shape)

    logits = 4 * (shape.slots + shape.output_rows) * SHAPES[name].vocabulary
    assert ours.weights == pytest.approx(weights, rel=0.05)
    assert ours.cells == pytest.approx(cells, rel=0.05)
    assert ours.compute - logits == pytest.approx(compute, rel=0.05)


def native_bytes(path: Path, shape: ModelShape, caplog) -> tuple[float, float, float]:
    """Bytes of weights, cells and the compute buffer, as the native code says without taking
    them."""
    caplog.set_level(logging.DEBUG, "llm_backend.engine.llama")
    log = capture_log()
    model_params = native.llama_model_default_params()
    model_params.no_alloc, model_params.load_mode = True, native.LLAMA_LOAD_MODE_NONE
    model = native.llama_model_load_from_file(str(path).encode(), model_params)
    params = native.llama_context_default_params()
    params.n_seq_max, params.n_ctx = shape.slots, shape.slots * shape.context_tokens
    params.n_batch = params.n_ubatch = shape.batch_tokens
    params.n_outputs_max = params.n_outputs_max_per_seq = shape.slots + shape.output_rows
    params.kv_unified = shape.kv_unified
    params.type_k = params.type_v = getattr(native, f"GGML_TYPE_{shape.cache_type.upper()}")
    if not shape.has_flash_attention:
        params.flash_attn_type = native.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = native.llama_init_from_model(model, params)
    weights = native.llama_model_size(model)
    native.llama_free(context)
    native.llama_model_free(model)
    native.llama_log_set(native.llama_log_callback(), None)
    assert not log.errors
    cells = sum(map(float, re.findall(r"llama_kv_cache: size = +([\d.]+) MiB", caplog.text)))
    compute = re.findall(r"compute buffer size = +([\d.]+) MiB", caplog.text)
    return weights, cells * 2**20, float(compute[-1]) * 2**20


def test_plan_counts_the_tokens_of_recent_chats_and_their_texts(models):
    model, on = models["8B"], machine(64)
    given = {"slots": 2, "context_tokens": 4096}
    without = plan_memory([model], on, PlanRequest(**given))
    remembering = plan_memory([model], on, PlanRequest(**given, generated_tokens_bytes=1 << 30))

    assert remembering.host_bytes - without.host_bytes == 1 << 30
    assert without.host.process > 60_000_000 + 100 * model.vocabulary


def test_plan_counts_the_snapshots_of_recurrent_states(tmp_path):
    costs = model_costs(read_header(write_delta_net(tmp_path / "state.gguf")))
    plain, drafting = (
        footprint(costs, ModelShape(context_tokens=512, slots=2, draft_tokens=drafts))
        for drafts in (0, 16)
    )

    state = 4 * (32 * 16 + 3 * (32 + 2 * 2 * 16))  # bytes: matrix, window of the convolution
    assert [layer.state for layer in costs.layers] == [state, 0, 0]
    assert [layer.cell_values for layer in costs.layers] == [0, 64, 64]
    assert drafting.cells - plain.cells == 3 * 2 * state
