"""What the members of an ensemble must have in common, and the mean of their predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from numpy.typing import ArrayLike

from cydrop._base.arrays import Floats
from cydrop._run.core import core_of
from cydrop._run.model import Model
from cydrop._run.prediction import predict
from cydrop.losses import Loss
from cydrop.monte_carlo import Tally
from cydrop.network import Network


def checked(networks: Any) -> tuple[Network, ...]:
    """The members, if they are networks that predict the same kind of thing."""
    if isinstance(networks, Network | Set | Mapping | str) or not isinstance(networks, Iterable):
        raise TypeError(f"networks must be a list of cydrop.Network, got {networks!r:.100} ({type(networks).__name__})")
    members = tuple(networks)
    if not members:
        raise ValueError("networks is empty: an ensemble needs at least one network")
    places: dict[int, int] = {}
    for place, member in enumerate(members):
        if not isinstance(member, Network):
            raise TypeError(
                f"networks[{place}] must be a cydrop.Network, got {member!r:.100} ({type(member).__name__})"
            )
        if id(member) in places:
            raise ValueError(
                f"networks[{place}] is networks[{places[id(member)]}]: a member stands in the list once; make as many "
                "as there shall be, each with a seed of its own, [make(seed) for seed in ...]"
            )
        places[id(member)] = place
    loss_of(members)
    plans = [(place, core_of(member).plan) for place, member in enumerate(members)]
    built = [(place, plan) for place, plan in plans if plan is not None]
    for place, plan in built[1:]:
        first, other = built[0]
        if plan.n_features != other.n_features:
            raise ValueError(
                f"networks[{place}] was built for {plan.n_features} features, networks[{first}] for {other.n_features}"
            )
        _check_outputs(place, plan.n_outputs, first, other.n_outputs)
    return members


def loss_of(members: Sequence[Network]) -> Loss:
    """The first member's loss; of the others it must be of the same class, that what they predict can be averaged."""
    first = members[0].loss
    for place, member in enumerate(members):
        if type(member.loss) is not type(first):
            raise ValueError(
                f"networks[{place}] has the loss {member.loss.name!r}, networks[0] {first.name!r}: "
                "predictions of one kind can be averaged, not of two"
            )
    return first


def _check_outputs(place: int, units: int, first: int, expected: int) -> None:
    if units != expected:
        raise ValueError(
            f"networks[{place}] has {units} outputs, networks[{first}] {expected}: members must predict the same"
        )


def inputs(members: Sequence[Network], X: ArrayLike) -> Floats:
    """Rows that every member can take."""
    rows = core_of(members[0]).inputs(X)
    for member in members[1:]:
        core_of(member).inputs(rows)
    return rows


def models(members: Sequence[Network], n_features: int) -> list[Model]:
    """The members' models, made where they are not there yet; all of the same kind of output."""
    loss_of(members)
    plans = [core_of(member).plan_for(n_features) for member in members]
    for place, plan in enumerate(plans):
        _check_outputs(place, plan.n_outputs, 0, plans[0].n_outputs)
    return [core_of(member).built_for(n_features) for member in members]


def mean(found: Sequence[Model], rows: Floats, n_threads: int, batch_size: int | None = None) -> Tally:
    """The members' predictions of some rows, added in float64 one after another."""
    tally = Tally(found[0].loss, (len(rows), found[0].plan.n_outputs), n_threads, entropies=False)
    for number, model in enumerate(found):
        tally.add(number, 0, predict(model, rows, True, batch_size)[None])
    return tally
