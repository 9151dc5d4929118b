"""Optuna with fit_many: a batch of trials is trained at once, and the unpromising ones are pruned.

    pip install optuna
    python examples/optuna_pruning.py [--trials 40] [--epochs 20]

Optuna suggests the settings of eight networks at a time (`ask`), `fit_many` trains them side by side, one thread a
network, and after each epoch a callback reports the validation loss and asks whether the trial should go on.
"""

import argparse

import numpy as np
import optuna

import cydrop as cd

TOGETHER = 8


def network_of(trial: optuna.Trial) -> cd.Network:
    layers: list[cd.layers.Layer] = []
    for _ in range(trial.suggest_int("layers", 1, 3)):
        units = trial.suggest_int("units", 16, 128, log=True)
        layers += [cd.Dense(units, activation="relu"), cd.Dropout(trial.suggest_float("rate", 0.0, 0.6))]
    optimizer = cd.Adam(trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True))
    return cd.Network([*layers, cd.Dense(10)], optimizer=optimizer, seed=trial.number)


class Prunes(cd.callbacks.Callback):
    """Reports a network's epochs to its trial, and stops it where the study says so."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.pruned = False

    def on_epoch_end(self, network: cd.Network, epoch: int, metrics: dict[str, float]) -> None:
        self.trial.report(metrics["val_loss"], epoch)
        if self.trial.should_prune():
            self.pruned = network.stop_training = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    X, y, X_test, y_test = cd.datasets.load_optdigits()
    held_out = np.arange(0, len(X), 5)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner(n_warmup_steps=2)
    )
    networks: dict[int, cd.Network] = {}
    while len(study.trials) < arguments.trials:
        trials = [study.ask() for _ in range(min(TOGETHER, arguments.trials - len(study.trials)))]
        together = [network_of(trial) for trial in trials]
        callbacks = {id(network): Prunes(trial) for network, trial in zip(together, trials, strict=True)}
        cd.fit_many(
            together, X, y, validation_rows=held_out, epochs=arguments.epochs, verbose=0,
            callbacks=lambda network, own=callbacks: [own[id(network)]],
        )  # fmt: skip
        for trial, network in zip(trials, together, strict=True):
            if callbacks[id(network)].pruned or network.history.diverged:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, min(network.history.metrics["val_loss"]))
            networks[trial.number] = network
    pruned = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
    best = networks[study.best_trial.number]
    print(f"{len(study.trials)} trials, {pruned} pruned; the best: {study.best_params}")
    print(f"validation loss {study.best_value:.4f}, test accuracy {best.evaluate(X_test, y_test)['accuracy']:.4f}")


if __name__ == "__main__":
    main()
