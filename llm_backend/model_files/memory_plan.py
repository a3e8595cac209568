"""Memory plan of a model on a machine: layers by device, slots, and the context of each.

Pure: a plan follows from the model's costs, the free memory and the settings. Values that the
settings give are kept. First the layers are placed on GPUs, with the cells of 8 slots of at most
4096 tokens.
Then the context grows to the longest one whose cells fit, up to the context that the model was
trained for. Cells may fill all of the GPUs' memory, and `cells_share` of the host memory that is
free beside weights and buffers. Slots are given up before context, down to two. If not even 8 slots
of 4096 tokens fit, the plan has fewer slots, then less context.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llm_backend.model_files.footprint import (
    DEFAULT_CONTEXT,
    Footprint,
    ModelShape,
    compute_buffer_bytes,
    context_of,
    footprint,
    state_count,
)
from llm_backend.model_files.layer_placement import LayerBytes, Placement, Placer
from llm_backend.model_files.memory import format_size
from llm_backend.model_files.model_costs import ModelCosts

DEFAULT_SLOTS = 8
_MIN_SLOTS = 2  # so that a short chat need not wait for the end of a long one
_MIN_CONTEXT_TOKENS = 512
_MARGIN_BYTES = 1 << 30  # of a device, for what no estimate counts: its driver, other programs
_SMALLER_SHARES = (0.75, 0.5, 0.25)  # of the free memory, for a plan that follows a failed one


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, by llama.cpp's name for it. `shares_host`: its memory is the machine's."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int
    shares_host: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Host memory in bytes, free and `total_bytes` (what models may have once other programs give
    way), and the GPUs."""

    free_bytes: int
    total_bytes: int
    devices: tuple[Device, ...] = ()

    def scale(self, host: float, devices: float) -> "Machine":
        """Returns this machine with the given shares of its free memory."""
        return replace(
            self,
            free_bytes=int(self.free_bytes * host),
            devices=tuple(
                replace(one, free_bytes=int(one.free_bytes * devices)) for one in self.devices
            ),
        )


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Settings of a plan. A value of None and an empty `tensor_split` are planned; `gpu_layers` -1
    means all layers."""

    slots: int | None = None
    context_tokens: int | None = None
    gpu_layers: int | None = None
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    split_mode: str = "layer"
    batch_tokens: int = 512
    output_rows: int = 32
    cache_type: str = "f16"
    kv_unified: bool = False
    has_flash_attention: bool = True
    cells_share: float = 0.5
    generated_tokens_bytes: int = 0
    draft_tokens: int = 0

    def shape(self, slots: int, context_tokens: int | None) -> ModelShape:
        """Returns the shape of a model with these settings."""
        return ModelShape(
            context_tokens=context_tokens,
            slots=slots,
            batch_tokens=self.batch_tokens,
            output_rows=self.output_rows,
            cache_type=self.cache_type,
            kv_unified=self.kv_unified,
            has_flash_attention=self.has_flash_attention,
            generated_tokens_bytes=self.generated_tokens_bytes,
            draft_tokens=self.draft_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Slots, context and placement of a model, and its bytes in host memory and on each device.
    `trained_tokens` is the context that it was trained for; 0 if its file does not say."""

    is_generating: bool
    slots: int
    context_tokens: int
    trained_tokens: int
    placement: Placement
    layers: int
    host: Footprint
    devices: tuple[Device, ...]
    device_bytes: tuple[int, ...]
    device_cells: int

    @property
    def host_bytes(self) -> int:
        """Bytes of host memory, those of devices that share it included."""
        on_devices = zip(self.devices, self.device_bytes, strict=True)
        return self.host.total + sum(size for one, size in on_devices if one.shares_host)

    @property
    def host_cells(self) -> int:
        """Bytes of the cells in host memory, those of devices that share it included."""
        shares_host = any(one.shares_host for one in self.devices)
        return self.host.cells + (self.device_cells if shares_host else 0)

    @property
    def total_bytes(self) -> int:
        """Bytes in host memory and on devices."""
        return self.host.total + sum(self.device_bytes)

    @property
    def exceeded_tokens(self) -> int | None:
        """The context that the model was trained for; None unless the plan exceeds it."""
        exceeds = self.is_generating and 0 < self.trained_tokens < self.context_tokens
        return self.trained_tokens if exceeds else None

    @property
    def sentence(self) -> str:
        """The plan in one line."""
        places = f"{self._places()}, {format_size(self.host.total)} of host memory."
        if not self.is_generating:
            return places
        beyond = ""
        if self.exceeded_tokens is not None:
            beyond = f" (more than the {self.exceeded_tokens:,} that it was trained for)"
        return f"{self.slots} x {self.context_tokens:,} tokens{beyond}, {places}"

    def _places(self) -> str:
        if not self.placement.gpu_layers:
            return "all layers on the CPU"
        on_devices = ", ".join(
            f"{count} on {one.name} ({format_size(size)})"
            for one, count, size in zip(
                self.devices, self.placement.counts, self.device_bytes, strict=True
            )
            if count
        )
        experts = self.placement.host_experts
        kept = f", the experts of the first {experts} on the CPU" if experts else ""
        return f"of {self.layers + 1} layers {on_devices}{kept}"


def plan_memory(
    models: Sequence[ModelCosts], machine: Machine, request: PlanRequest, *, extra_bytes: int = 0
) -> MemoryPlan:
    """Plans the memory of a model, the first of `models`; the others are draft models, which have
    cells for the same slots. `extra_bytes` of host memory are for adapters and projectors."""
    return _Planning(tuple(models), machine, request, extra_bytes).plan()


def plan_smaller(
    models: Sequence[ModelCosts], machine: Machine, request: PlanRequest, *, extra_bytes: int = 0
) -> MemoryPlan | None:
    """Returns the plan to try if the one for this machine turns out not to fit; None if the
    settings allow no smaller one."""
    first = plan_memory(models, machine, request, extra_bytes=extra_bytes)
    for share in _SMALLER_SHARES:
        less = machine.scale(share, share)
        smaller = plan_memory(models, less, request, extra_bytes=extra_bytes)
        if smaller.total_bytes < first.total_bytes or smaller.placement != first.placement:
            return smaller
    return None


class _Planning:
    def __init__(
        self,
        models: tuple[ModelCosts, ...],
        machine: Machine,
        request: PlanRequest,
        extra_bytes: int,
    ) -> None:
        self._models = models
        self._machine = machine
        self._request = request
        self._extra_bytes = extra_bytes
        self._trained_tokens = models[0].trained_tokens or DEFAULT_CONTEXT
        self._devices = self._usable_devices()

    def plan(self) -> MemoryPlan:
        request = self._request
        plain = self._lay_out(
            request.slots or DEFAULT_SLOTS,
            request.context_tokens or min(self._trained_tokens, DEFAULT_CONTEXT),
        )
        if not self._models[0].is_generating:
            return plain
        if request.context_tokens is None:
            for longer in self._longer_plans(plain):
                if self._is_within_share(longer, plain):
                    return longer
        shorter = list(self._shorter_plans(plain))
        for limit in (self._machine.free_bytes, self._machine.total_bytes):
            if fitting := next((one for one in shorter if one.host_bytes <= limit), None):
                return fitting
        return plain

    def _longer_plans(self, plain: MemoryPlan) -> Iterator[MemoryPlan]:
        """Yields plans with more context than the plain one and at least as many cells, the best
        first."""
        given = self._request.slots
        slot_counts = [given] if given else list(range(DEFAULT_SLOTS, _MIN_SLOTS - 1, -1))
        cells = plain.slots * plain.context_tokens
        for context in _contexts(self._trained_tokens, plain.context_tokens + 1):
            # slots are only given up for the trained context; a shorter one has the fewest
            for slots in slot_counts if context == self._trained_tokens else slot_counts[-1:]:
                if slots * context >= cells:
                    yield self._lay_out(slots, context)

    def _shorter_plans(self, plain: MemoryPlan) -> Iterator[MemoryPlan]:
        """Yields the plain plan, then plans with fewer slots, then with less context."""
        yield plain
        slots = plain.slots
        if self._request.slots is None:
            for slots in range(plain.slots - 1, 0, -1):
                yield self._lay_out(slots, plain.context_tokens)
        if self._request.context_tokens is None:
            for context in _contexts(plain.context_tokens - 1, _MIN_CONTEXT_TOKENS):
                yield self._lay_out(slots, context)

    def _is_within_share(self, longer: MemoryPlan, plain: MemoryPlan) -> bool:
        """True if the longer plan keeps as many layers on devices, and its cells and the
        activations for them take no more than their share of the host memory."""
        fixed = plain.host_bytes - plain.host_cells
        left = max(0, self._machine.free_bytes - fixed)
        limit = max(fixed + int(self._request.cells_share * left), plain.host_bytes)
        keeps_layers = longer.placement.is_as_good_as(plain.placement)
        return keeps_layers and longer.host_bytes <= min(limit, self._machine.total_bytes)

    def _usable_devices(self) -> tuple[Device, ...]:
        devices, request = self._machine.devices, self._request
        if request.gpu_layers == 0:
            return ()
        return devices[request.main_gpu :][:1] if request.split_mode == "none" else devices

    def _lay_out(self, slots: int, context_tokens: int) -> MemoryPlan:
        """Returns the plan with these slots of this context, and as many layers on devices as
        fit."""
        model, *drafts = self._models
        shape = self._request.shape(slots, context_tokens)
        whole = footprint(model, shape)
        layers = self._layers(shape)
        compute, others = compute_buffer_bytes(model, shape), self._other_bytes(drafts, shape)
        each = others // max(1, len(self._devices))
        placer = Placer(
            layers=layers,
            capacities=[
                max(0, one.free_bytes - _MARGIN_BYTES - compute - each) for one in self._devices
            ],
            split=self._request.tensor_split,
        )
        placement = self._place(placer)
        placed, has_devices = placer.device_bytes(placement), placement.gpu_layers > 0
        cells = self._host_cells(shape, placement)
        off_host = sum(placed) - (whole.cells - cells) - (model.tied_output if has_devices else 0)
        return MemoryPlan(
            is_generating=model.is_generating,
            slots=slots,
            context_tokens=context_tokens,
            trained_tokens=model.trained_tokens,
            placement=placement,
            layers=len(model.layers),
            host=replace(
                whole,
                weights=whole.weights - off_host + (0 if has_devices else others),
                cells=cells,
            ),
            devices=self._devices,
            device_bytes=tuple(size + (compute + each if size else 0) for size in placed),
            device_cells=whole.cells - cells,
        )

    def _other_bytes(self, drafts: Sequence[ModelCosts], shape: ModelShape) -> int:
        """Returns the bytes of the draft models, adapters and the projector, which are placed with
        the model."""
        footprints = [footprint(one, _draft_shape(one, shape)) for one in drafts]
        return sum(one.total - one.process for one in footprints) + self._extra_bytes

    def _place(self, placer: Placer) -> Placement:
        count = self._request.gpu_layers
        if not self._devices:
            return Placement(counts=())
        if count is None:
            return placer.place()
        return placer.place_last(len(placer.layers) if count < 0 else count)

    def _layers(self, shape: ModelShape) -> list[LayerBytes]:
        """Returns the bytes of the layers with their cells, and of the output layer."""
        model = self._models[0]
        slots = shape.slots if model.is_generating else 0
        tokens = slots * context_of(model, shape)
        states = state_count(model, shape) if slots else 0
        layers = [
            LayerBytes(
                layer=one.weights + one.cells(tokens, states, shape.cache_type), experts=one.experts
            )
            for one in model.layers
        ]
        return [*layers, LayerBytes(layer=model.output + model.tied_output)]

    def _host_cells(self, shape: ModelShape, placement: Placement) -> int:
        """Returns the bytes of the cells of layers on the CPU."""
        model = self._models[0]
        if not model.is_generating:
            return 0
        tokens = shape.slots * context_of(model, shape)
        on_host = max(0, len(model.layers) + 1 - placement.gpu_layers)
        return sum(
            one.cells(tokens, state_count(model, shape), shape.cache_type)
            for one in model.layers[:on_host]
        )


def _draft_shape(draft: ModelCosts, shape: ModelShape) -> ModelShape:
    """Returns the shape of a draft model, whose context is at most the one it was trained for."""
    context = shape.context_tokens or DEFAULT_CONTEXT
    return replace(shape, context_tokens=min(context, draft.trained_tokens or context))


def _contexts(maximum: int, minimum: int) -> Iterator[int]:
    """Yields context sizes from `maximum` down to `minimum`, four in each octave. Below the maximum
    they are round numbers: so a start with slightly less free memory plans the same context, and
    can use the prefix files of the previous start."""
    if maximum >= minimum:
        yield maximum
    for power in range(maximum.bit_length(), _MIN_CONTEXT_TOKENS.bit_length() - 2, -1):
        for quarter in (7, 6, 5, 4):
            context = (quarter << power) // 4
            if minimum <= context < maximum:
                yield context
