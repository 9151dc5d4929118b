"""Many networks on several processes, or several machines: which width and rate are best for the digits?

    python mpi_many.py                                              # this process
    mpiexec -n 3 python -m mpi4py.futures mpi_many.py               # two workers, and this process to tell them
    mpiexec -n 9 -hosts first,second python -m mpi4py.futures mpi_many.py   # eight workers on two machines (MPICH)

Successive halving: all networks get an epoch or a few, the best third of them three times as many, and so on. The
networks come out the same to the last bit, wherever they were trained. Needs `pip install mpi4py` and an MPI:
`pip install mpich`, or the machine's own.
"""

import argparse
from contextlib import nullcontext

import numpy as np

import cydrop as cd


def pool():
    """The workers that mpiexec has started; None where this process is alone."""
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPIPoolExecutor
    except ImportError:
        return nullcontext()
    return MPIPoolExecutor() if MPI.COMM_WORLD.size > 1 else nullcontext()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=27)
    options = parser.parse_args()
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    settings = [(units, rate) for units in (32, 64, 128, 256) for rate in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    networks = [
        cd.Network(
            [cd.Dense(units, activation="relu"), cd.Dropout(rate), cd.Dense(10)], optimizer=cd.Adam(0.01), seed=0
        )
        for units, rate in settings
    ]
    held_out = np.arange(0, len(X), 5)
    with pool() as executor:
        histories = cd.fit_many(
            networks, X, y, validation_rows=held_out, epochs=options.epochs, halving=3, executor=executor, verbose=0
        )
    losses = [min(history.metrics.get("val_loss", [np.inf])) for history in histories]  # infinite: it diverged at once
    ranked = np.argsort(losses)
    for place in ranked[:3]:
        epoch, loss = histories[place].best("val_loss")
        units, rate = settings[place]
        epochs = len(histories[place])
        print(f"{units:4} units, rate {rate}: validation loss {loss:.4f} after epoch {epoch} of {epochs}")
    print(f"the best one on test rows: accuracy {networks[ranked[0]].evaluate(X_test, y_test)['accuracy']:.4f}")


if __name__ == "__main__":  # workers read this file too
    main()
