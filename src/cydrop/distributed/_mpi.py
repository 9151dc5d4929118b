"""What is imported only where MPI is asked for."""

from __future__ import annotations

from typing import Any

from cydrop.distributed._ranks import Ranks, guard
from cydrop.distributed._trainer import RankTrainer


def checked(comm: Any, shards: int) -> Any:
    """The argument `comm`."""
    if comm != "world" and not hasattr(comm, "Get_rank"):  # said before mpi4py is asked for
        raise TypeError(_refusal(comm))
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"training on several processes needs mpi4py and an MPI: pip install 'cydrop[mpi]' mpich ({error})"
        ) from error
    guard(MPI)
    if isinstance(comm, str) and comm == "world":
        comm = MPI.COMM_WORLD
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(_refusal(comm))
    size = comm.Get_size()
    if size & (size - 1) or size > shards:
        numbers = [str(2**i) for i in range(shards.bit_length())]
        allowed = f"{', '.join(numbers[:-1])} or {numbers[-1]} ranks" if shards > 1 else "one process"
        advice = "" if size & (size - 1) else f", or give shards={size}"
        raise ValueError(f"comm has {size} ranks; with shards={shards} start {allowed}{advice}")
    return comm


def _refusal(comm: Any) -> str:
    return (
        f'comm must be a communicator of mpi4py, as mpi4py.MPI.COMM_WORLD, "world" or None, got {comm!r} '
        f"({type(comm).__name__})"
    )


def ranks(comm: Any, partitioned: bool) -> Ranks:
    """The ranks of a communicator."""
    return Ranks(comm, partitioned)


def trainer(comm: Any, partitioned: bool, shards: int) -> RankTrainer:
    """Trains with them."""
    return RankTrainer(Ranks(comm, partitioned), shards)
