"""What ranks send each other in a step: every one gets its slice of all gradients, and gives its slice of the weights.

              rank 0's gradient    rank 1's gradient
    slice 0        [a0]     <-----      [a1]             rank 0 adds a0 + a1, updates slice 0 of the parameters
    slice 1        [b0]     ----->      [b1]             rank 1 adds b0 + b1, updates slice 1
                                                         both give their slice to all

A slice is a whole number of spans: the sums of squares of a gradient's spans are then those of one process.
"""

from __future__ import annotations

import numpy as np

from cydrop._base.arrays import Floats
from cydrop._core import optimizers
from cydrop._run.model import Model
from cydrop.distributed._ranks import Ranks


class Exchange:
    """The sending in the steps of a pass. Each call is made by all ranks, right after a signal.

    Attributes
    ----------
    start, stop : int
        This rank's slice of the arenas.
    incoming : ndarray of float32, (ranks, stop - start)
        The slice of every rank's gradient.
    own_squares, squares : ndarray of float64
        Where the optimizer clips, a sum of squares for each span: of the slice, and of all.
    statistics : ndarray of float32, (ranks, buffers)
        Those of every rank.
    """

    def __init__(self, ranks: Ranks, model: Model) -> None:
        self._comm, self._mpi = ranks.comm, ranks.mpi
        n = len(model.parameters)
        ends = optimizers.slices_of(n, ranks.size)[1:]
        self._slices, self._spans = _parts(ends), _parts([optimizers.spans_of(end) for end in ends])
        counts, places = self._slices
        own = counts[ranks.rank]
        self.start, self.stop = places[ranks.rank], places[ranks.rank] + own
        self._received = _parts([own * (rank + 1) for rank in range(ranks.size)])
        self.incoming = np.empty((ranks.size, own), dtype=np.float32)
        clips = model.optimizer.clip_norm is not None
        self.own_squares = np.zeros(self._spans[0][ranks.rank] if clips else 0)
        self.squares = np.zeros(optimizers.spans_of(n) if clips else 0)
        self.statistics = np.zeros((ranks.size, len(model.buffers)), dtype=np.float32)

    def slices(self, gradients: Floats) -> None:
        """Fills `incoming`."""
        of_floats = self._mpi.FLOAT
        self._comm.Alltoallv([gradients, *self._slices, of_floats], [self.incoming, *self._received, of_floats])

    def all_squares(self) -> None:
        """Fills `squares`."""
        if len(self.squares):
            self._comm.Allgatherv(self.own_squares, [self.squares, *self._spans, self._mpi.DOUBLE])

    def gather(self, arena: Floats) -> None:
        """Fills in the others' slices of an arena."""
        if len(arena):
            self._comm.Allgatherv(self._mpi.IN_PLACE, [arena, *self._slices, self._mpi.FLOAT])

    def all_statistics(self, own: Floats) -> None:
        """Fills `statistics`."""
        if len(own):
            self._comm.Allgather(own, self.statistics)


def _parts(ends: list[int]) -> tuple[list[int], list[int]]:
    """Sizes and places of parts that end there."""
    places = [0, *ends[:-1]]
    return [end - place for place, end in zip(places, ends, strict=True)], places
