"""Memory plans of the served models: divides the machine's memory among them.

Host memory is measured once, before a model is loaded: later, KV cells that are reserved and not
yet written would count as free. The memory of GPUs is measured at each load.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llm_backend.app.served_models import ServedModel
from llm_backend.engine import EngineConfig
from llm_backend.engine.config import EngineFit
from llm_backend.engine.messages import ModelKind
from llm_backend.model_files import (
    Device,
    HeaderError,
    Machine,
    MemoryPlan,
    ModelCosts,
    PlanRequest,
    available_memory_bytes,
    footprint,
    machine_memory_bytes,
    model_costs,
    plan_memory,
    plan_smaller,
    projector_footprint,
    read_header,
    read_whisper_header,
)

log = logging.getLogger(__name__)

FindDevices = Callable[[], Sequence[Device]]


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """Configuration of a model's engine, fitted to the machine, and the model's bytes of memory.
    `exceeded_tokens` is the context that the model was trained for, if the planned one is
    longer."""

    engine: EngineConfig
    bytes: int
    device_bytes: tuple[int, ...] = ()
    exceeded_tokens: int | None = None


def memory_budget_bytes(configured: int | None, devices: Sequence[Device]) -> int:
    """Returns the bytes that all models may take: the configured ones, else the memory of the
    machine and of its GPUs."""
    gpu_bytes = sum(one.total_bytes for one in devices if not one.shares_host)
    return configured or machine_memory_bytes() + gpu_bytes


class ModelPlanner:
    """Plans the memory of the served models on this machine."""

    def __init__(self, memory_budget: int | None, find_devices: FindDevices = tuple) -> None:
        self._find_devices = find_devices
        self._devices = tuple(find_devices())
        self.budget_bytes = memory_budget_bytes(memory_budget, self._devices)
        total = min(machine_memory_bytes(), self.budget_bytes)
        self._machine = Machine(
            free_bytes=min(available_memory_bytes() or total, total),
            total_bytes=total,
            devices=self._devices,
        )
        self._planned: dict[str, PlannedModel] = {}
        self._costs_by_file: dict[tuple[Path, int, int], ModelCosts] = {}

    def plan(
        self, model: ServedModel, served: Sequence[ServedModel], loaded: Collection[str] = ()
    ) -> PlannedModel:
        """Plans a model beside the others that are `served`, of which those named in `loaded`
        are in memory already. Reads headers of files."""
        planned = self._plan(model, served, loaded)
        self._planned[model.card.id] = planned
        if model.memory_bytes is not None:
            return replace(planned, bytes=model.memory_bytes)
        return planned

    def plan_alone(self, costs: ModelCosts, request: PlanRequest) -> MemoryPlan:
        """Plans a model that has this machine for itself."""
        return plan_memory([costs], self._machine, request)

    def _plan(
        self, model: ServedModel, served: Sequence[ServedModel], loaded: Collection[str]
    ) -> PlannedModel:
        if (own_bytes := _own_bytes(model)) is not None:
            return PlannedModel(engine=model.engine, bytes=own_bytes)
        extra = _extra_bytes(model)
        try:
            costs = self._costs(model)
        except HeaderError as error:  # the engine will report what is wrong with the file
            log_unknown_size(model, error)
            return PlannedModel(engine=model.engine, bytes=extra)
        request, machine = _request(model), self._part_for(model, served, loaded)
        plan = plan_memory(costs, machine, request, extra_bytes=extra)
        smaller = plan_smaller(costs, machine, request, extra_bytes=extra)
        return PlannedModel(
            engine=model.engine.with_fit(
                _fit(model, plan), smaller_fit=_fit(model, smaller) if smaller else None
            ),
            bytes=plan.total_bytes,
            device_bytes=plan.device_bytes,
            exceeded_tokens=plan.exceeded_tokens,
        )

    def _part_for(
        self, model: ServedModel, served: Sequence[ServedModel], loaded: Collection[str]
    ) -> Machine:
        """The memory for one model's plan: the least that it needs, and an equal share of the rest.
        If the models do not fit together, only one is loaded at a time, and gets all memory."""
        needs = [self._least_bytes(one) for one in served if one.card.id != model.card.id]
        own = self._least_bytes(model)
        total = sum(one.free_bytes for one in self._devices)
        share = _share(total, own, needs)
        taken = [self._planned[one].device_bytes for one in loaded if one in self._planned]
        devices = self._find_devices() if self._devices else ()
        return replace(
            self._machine.scale(_share(self._machine.free_bytes, own, needs), 1.0),
            devices=tuple(
                replace(
                    now,
                    free_bytes=max(
                        0,
                        min(
                            now.free_bytes,
                            int(first.free_bytes * share),
                            first.free_bytes - sum(one[at] for one in taken if at < len(one)),
                        ),
                    ),
                )
                for at, (first, now) in enumerate(zip(self._devices, devices, strict=False))
            ),
        )

    def _least_bytes(self, model: ServedModel) -> int:
        """Bytes of a model with the slots and context of `engine`; 0 if its file cannot be read."""
        if model.memory_bytes is not None:
            return model.memory_bytes
        if (own_bytes := _own_bytes(model)) is not None:
            return own_bytes
        try:
            costs = self._costs(model)
        except HeaderError:
            return 0
        shape = _request(model).shape(model.engine.slots, model.engine.context_tokens)
        return sum(footprint(one, shape).total for one in costs) + _extra_bytes(model)

    def _costs(self, model: ServedModel) -> list[ModelCosts]:
        """Costs of the model, with the kind that the settings give it, and of its draft model."""
        engine = model.engine
        own = self._costs_of(engine.model_path)
        if engine.kind is not None:
            own = replace(own, is_generating=engine.kind is ModelKind.CHAT)
        if engine.draft_model_path is None:
            return [own]
        return [own, self._costs_of(engine.draft_model_path)]

    def _costs_of(self, path: Path) -> ModelCosts:
        """Costs of a file, read once: a large vocabulary takes a tenth of a second."""
        if not path.is_file():
            return model_costs(read_header(path))  # raises with the reason
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_size)
        if key not in self._costs_by_file:
            self._costs_by_file[key] = model_costs(read_header(path))
        return self._costs_by_file[key]


def _own_bytes(model: ServedModel) -> int | None:
    """Bytes of a model of images, speech, diarization or transcription; None for other kinds. 0 if
    its file cannot be read, which the engine reports."""
    if model.image_setup is not None:
        return model.image_setup.memory_bytes
    if model.voice is not None:
        return model.voice.memory_bytes
    if model.diarization is not None:
        return model.diarization.memory_bytes
    if model.recognizer is not None:
        return model.recognizer.memory_bytes
    if model.engine.kind is not ModelKind.TRANSCRIPTION:
        return None
    try:
        return read_whisper_header(model.engine.model_path).memory_bytes
    except HeaderError as error:
        log_unknown_size(model, error)
        return 0


def log_unknown_size(model: ServedModel, error: HeaderError) -> None:
    """Logs that the memory of a model cannot be estimated."""
    log.warning("model_size_unknown", extra={"model": model.card.id, "reason": str(error)})


def _share(total: int, own: int, others: Sequence[int]) -> float:
    """Fraction of `total` for a model that needs `own` beside models that need `others`; 1.0 if
    they do not fit together."""
    spare = total - own - sum(others)
    if not total or spare < 0:
        return 1.0
    return (own + spare / (1 + len(others))) / total


def _request(model: ServedModel) -> PlanRequest:
    assert model.plan_request is not None, "a model without `_own_bytes` has a plan request"
    return model.plan_request


def _extra_bytes(model: ServedModel) -> int:
    """Bytes of adapters and the projector."""
    engine = model.engine
    total = sum(_size(Path(one.path)) for one in engine.adapters)
    if engine.projector_path is not None:
        try:
            total += projector_footprint(read_header(engine.projector_path))
        except HeaderError as error:
            log_unknown_size(model, error)
    return total


def _size(path: Path) -> int:
    """Returns the size of a file; 0 if it is missing, which the engine will report."""
    return path.stat().st_size if path.is_file() else 0


def _fit(model: ServedModel, plan: MemoryPlan) -> EngineFit:
    """The engine's part of a plan. Settings of GPUs have priority over the plan."""
    engine, request = model.engine, _request(model)
    counts = tuple(float(one) for one in plan.placement.counts)
    are_planned = request.gpu_layers is None
    return EngineFit(
        slots=plan.slots if plan.is_generating else engine.slots,
        context_tokens=plan.context_tokens if plan.is_generating else engine.context_tokens,
        gpu_layers=plan.placement.gpu_layers if are_planned else engine.gpu_layers,
        tensor_split=request.tensor_split or (counts if are_planned else ()),
        host_experts=plan.placement.host_experts if are_planned else 0,
        plan=plan.sentence,
    )
