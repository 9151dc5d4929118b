"""Fashion-MNIST on several processes, or several machines: the same network to the last bit.

    python mpi_fashion.py FOLDER                                        # one process
    mpiexec -n 2 python -m mpi4py mpi_fashion.py FOLDER                 # two, on this machine
    mpiexec -n 4 -hosts first,second python -m mpi4py mpi_fashion.py FOLDER   # and on two machines (MPICH)

FOLDER holds the four IDX files (fashion_mnist.py says where they are from) and must be there on every machine. Needs
`pip install mpi4py` and an MPI: `pip install mpich`, or the machine's own. `python -m mpi4py` ends all processes when
one fails. The last line is a SHA-256 of all parameters: compare it.
"""

import argparse
import hashlib

import cydrop as cd


def communicator():
    """MPI's communicator of all processes; None where mpi4py is not installed: this process is alone."""
    try:
        from mpi4py import MPI
    except ImportError:
        return None
    return MPI.COMM_WORLD


def make_network(classes: int) -> cd.Network:
    return cd.Network(
        [
            cd.Dense(512, activation="relu"),
            cd.Dropout(0.3),
            cd.Dense(512, activation="relu"),
            cd.Dropout(0.3),
            cd.Dense(classes),
        ],
        optimizer=cd.Adam(cd.schedules.FlatCos(1e-3)),
        seed=0,
    )


def fingerprint(net: cd.Network) -> str:
    """SHA-256 of the parameters' bytes."""
    digest = hashlib.sha256()
    for value in net.parameters().values():
        digest.update(value.tobytes())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--save", metavar="FILE", help="keep the best network here")
    options = parser.parse_args()
    comm = communicator()
    X, y, X_test, y_test = cd.datasets.load_idx(options.folder)
    net = make_network(int(y.max()) + 1)
    callbacks = [cd.callbacks.Checkpoint(options.save)] if options.save else []
    net.fit(
        X,
        y,
        epochs=options.epochs,
        batch_size=512,
        validation_data=(X_test, y_test),
        callbacks=callbacks,
        parallel=cd.distributed.DataParallel(comm),
        verbose=1,
    )
    if comm is None or comm.rank == 0:
        ranks = 1 if comm is None else comm.size
        print(f"{ranks} process{'es' * (ranks > 1)}: {fingerprint(net)}")


if __name__ == "__main__":
    main()
