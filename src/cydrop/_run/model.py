"""A plan with its memory: the arenas, the engine that runs it, and workspaces that wait for the next call.

A model is made in one piece, with its first weights, and never changes its parts: another optimizer, loss, rate or
number of threads makes another model on the same arenas. Whoever holds one has everything that belongs together,
whatever interrupt or lack of memory came while it was made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cydrop._base.arrays import Floats
from cydrop._core import noise
from cydrop._core.engine import Engine, Workspace
from cydrop._core.memory import aligned
from cydrop._run.plan import Parameter, Plan
from cydrop._run.state import Weights
from cydrop.losses import Loss
from cydrop.optimizers import Optimizer

KEPT_KINDS = 4  # kinds and sizes of workspaces that are kept for the next call
KEPT_EACH = 4  # of each: as many threads as predict at the same time find theirs again


@dataclass(eq=False, frozen=True, repr=False)
class Model:
    """What a network is once its inputs' width is known.

    Attributes
    ----------
    plan : Plan
    loss : Loss
    optimizer : Optimizer
    parameters, gradients : ndarray of float32
        Arenas of the plan's layout.
    buffers : ndarray of float32
        Running statistics.
    moments : two ndarrays of float32
        The optimizer's, of the parameters' size, or empty.
    engine : Engine
    precision : str
        Of products.
    idle : dict
        Workspaces that nobody uses, by rows, training, masked, shards.
    """

    plan: Plan
    loss: Loss
    optimizer: Optimizer
    parameters: Floats
    gradients: Floats
    buffers: Floats
    moments: tuple[Floats, Floats]
    engine: Engine
    precision: str = "float32"
    idle: dict[tuple[int, bool, bool, int], list[Workspace]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, loss: Loss, optimizer: Optimizer, n_threads: int, precision: str) -> Model:
        """A model of zeros."""
        parameters, gradients = aligned(plan.arena_size), aligned(plan.arena_size)
        buffers = aligned(plan.buffer_size)
        engine = _engine(plan, loss, parameters, gradients, buffers, n_threads, precision)
        moments = _fresh_moments(optimizer, plan.arena_size)
        return cls(plan, loss, optimizer, parameters, gradients, buffers, moments, engine, precision)

    def with_optimizer(self, optimizer: Optimizer) -> Model:
        """The same with another optimizer; one of another kind begins with fresh moments."""
        own = self.optimizer
        same_kind = type(optimizer) is type(own) and optimizer.used_moments() == own.used_moments()
        moments = self.moments if same_kind else _fresh_moments(optimizer, len(self.parameters))
        return replace(self, optimizer=optimizer, moments=moments)

    def with_plan(self, plan: Plan, loss: Loss, n_threads: int, precision: str) -> Model:
        """The same arenas and counters under another plan of the same layout, loss, number of threads or precision."""
        own = self.ready()
        engine = _engine(plan, loss, self.parameters, self.gradients, self.buffers, n_threads, precision)
        found = replace(self, plan=plan, loss=loss, engine=engine, precision=precision, idle={})
        engine.draws = own.draws
        found.count_updates(own.updates)
        return found

    # Running ----------------------------------------------------------------------------------------------

    def ready(self) -> Engine:
        """The engine with this optimizer in force."""
        force = self.engine.in_force
        if force is None or force[0] is not self.optimizer or force[1] is not self.moments:
            self.count_updates(self.engine.updates if force is not None and force[1] is self.moments else 0)
        return self.engine

    def count_updates(self, updates: int) -> None:
        """Puts the optimizer in force, as one that has made so many updates."""
        force, (first, second) = (self.optimizer, self.moments), self.moments
        self.engine.set_optimizer(force, updates, first, second, *self.optimizer.kernel_options())

    def borrow(self, rows: int, training: bool = False, masked: bool = False, shards: int = 0) -> Workspace:
        """A workspace for batches of `rows` rows, in up to `shards` shards, that nobody uses."""
        rows *= self.loss.copies if training else 1
        try:
            return self.idle[rows, training, masked, shards].pop()
        except (KeyError, IndexError):
            return Workspace(self.engine, rows, training, masked, shards)

    def give_back(self, workspace: Workspace) -> None:
        """Keeps a workspace for the next call, unless enough of them are kept."""
        kind = workspace.capacity, workspace.training, workspace.masked, workspace.shards
        waiting = self.idle.setdefault(kind, [])
        waiting.append(workspace)
        while len(waiting) > KEPT_EACH:  # looked at afterwards: threads that give back together see each other's
            with suppress(IndexError):  # another thread took it meanwhile
                waiting.pop()
        for oldest in list(self.idle)[:-KEPT_KINDS]:  # batches of ever new sizes must not fill the memory
            self.idle.pop(oldest, None)

    # State ------------------------------------------------------------------------------------------------

    def views(self, arena: Floats) -> OrderedDict[str, Floats]:
        """Views of an arena of the parameters' layout, by the parameters' names."""
        return _views(arena, self.plan.parameters)

    def running(self, arena: Floats | None = None) -> OrderedDict[str, Floats]:
        """Views of the running statistics, or of another arena of their layout."""
        return _views(self.buffers if arena is None else arena, self.plan.buffers)

    def arrays(self) -> dict[str, Floats]:
        """Views of what predictions depend on: parameters and running statistics."""
        return {**self.views(self.parameters), **self.running()}

    def tensors(self) -> dict[str, Floats]:
        """Views of all arrays that training changes, under the names that files and pickles give them."""
        tensors: dict[str, Floats] = dict(self.views(self.parameters))
        for number, moment in enumerate(self.moments, 1):
            if moment.size:
                tensors |= {f"moment{number}.{name}": view for name, view in self.views(moment).items()}
        return tensors | self.running()

    def learned_rates(self) -> dict[str, float]:
        """The rates that are learned, as they are now, by their layers' places: "2.rate"."""
        views = self.views(self.parameters)
        places = [draw.place for draw in self.plan.learned]
        return {f"{place}.rate": noise.rate_of_logit(views[f"{place}.logit"][0]) for place in places}

    @property
    def weights(self) -> Weights:
        """What predictions depend on, as arenas; not copies."""
        return Weights(self.parameters, self.buffers)


def _engine(
    plan: Plan, loss: Loss, parameters: Floats, gradients: Floats, buffers: Floats, n_threads: int, precision: str
) -> Engine:
    return Engine(
        plan, parameters, gradients, buffers, loss.code, loss.option, loss.pair, loss.levels, n_threads,
        _learned(plan, loss), precision == "bfloat16",
    )  # fmt: skip


def _learned(plan: Plan, loss: Loss) -> list[tuple[int, int, float, float, float, float]]:
    """The learned rates as the engine takes them: numbers of two parameters, units, strength, length scale, rows."""
    numbers = {parameter.offset: number for number, parameter in enumerate(plan.parameters)} | {-1: -1}
    found = []
    for draw in plan.learned:
        op = plan.ops[draw.op]
        lengthscale, precision, rows = op.prior
        strength = loss.of_likelihood(plan.n_outputs, precision)
        weight = numbers[plan.next_weight(draw.op)]
        found.append((numbers[op.weight], weight, float(op.n_out), strength, lengthscale, rows))
    return found


def _fresh_moments(optimizer: Optimizer, size: int) -> tuple[Floats, Floats]:
    first, second = (aligned(size if used else 0) for used in optimizer.used_moments())
    return first, second


def _views(arena: Floats, parameters: Sequence[Parameter]) -> OrderedDict[str, Floats]:
    return OrderedDict((p.name, arena[p.offset : p.offset + p.size].reshape(p.shape)) for p in parameters)
