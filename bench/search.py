"""What a search gains: `tabular.search` beside the estimator's defaults, on tables of at most 1,000 training rows.

    python bench/search.py FOLDER [FOLDER ...] [--tables concrete,german] [--rows 1000] [--trials 50] [--folds 8]
                           [--estimator realmlp] [--seeds 1] [--into FILE.jsonl]

A fifth of each table is for the test, of the others at most --rows are trained on, drawn by each seed. Printed are the
test errors (the RMSE in units of the target's deviation in the training rows, or the share of wrong classes) of

default     the estimator as it is, one network
folds       the same with n_folds, the mean of as many networks
search      tabular.search with --trials configurations and as many folds

and the seconds that each took, on all processors. What is in --into already is not done again.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import leave_slowing_variables
from table_data import Table, tables

from cydrop import tabular

MODELS = {
    "realmlp": {True: tabular.RealMLPClassifier, False: tabular.RealMLPRegressor},
    "tabm": {True: tabular.TabMClassifier, False: tabular.TabMRegressor},
}


def rows_of(table: Table, seed: int, most: int) -> tuple[Any, Any]:
    """Numbers of training and test rows."""
    order = np.random.default_rng(seed).permutation(len(table.target))
    tests = round(0.2 * len(order))
    return order[tests : tests + most], order[:tests]


def error(model: Any, table: Table, train: Any, test: Any) -> float:
    predicted = model.predict(table.frame.iloc[test])
    if table.classes:
        return float(np.mean(predicted != table.target[test]))
    spread = table.target[train].std()
    return float(np.sqrt(np.mean((predicted - table.target[test]) ** 2)) / spread)


def run(table: Table, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    train, test = rows_of(table, seed, arguments.rows)
    X, y = table.frame.iloc[train], table.target[train]
    kind = MODELS[arguments.estimator][table.classes]
    found: dict[str, Any] = {"table": table.name, "seed": seed, "rows": len(train), "classes": table.classes}
    makers = {
        "default": lambda: kind(random_state=seed).fit(X, y),
        "folds": lambda: kind(random_state=seed, n_folds=arguments.folds).fit(X, y),
        "search": lambda: tabular.search(
            X, y, estimator=kind(), n_trials=arguments.trials, n_folds=arguments.folds, random_state=seed
        ),
    }
    for name, make in makers.items():
        start = time.perf_counter()
        model = make()
        found[f"{name}_seconds"] = time.perf_counter() - start
        found[name] = error(model, table, train, test)
    found["held_out"] = model.best_score_
    found["chosen"] = [
        {"number": trial["number"], "share": trial["share"], "epochs": trial["epochs"]}
        for trial in model.trials_
        if trial["share"]
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--tables", help="names, by commas; all otherwise")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--folds", type=int, default=8)
    parser.add_argument("--estimator", choices=MODELS, default="realmlp")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--into", type=Path)
    arguments = parser.parse_args()
    leave_slowing_variables()
    wanted = arguments.tables.split(",") if arguments.tables else None
    done = []
    if arguments.into and arguments.into.exists():
        done = [json.loads(line) for line in arguments.into.read_text().splitlines()]
    known = {(one["table"], one["seed"]) for one in done}
    for table in tables(*arguments.folders):
        for seed in range(arguments.seeds if wanted is None or table.name in wanted else 0):
            if (table.name, seed) in known:
                continue
            found = run(table, seed, arguments)
            done.append(found)
            if arguments.into:
                with arguments.into.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            print_row(found)
    print_table(done)


def print_row(found: dict[str, Any]) -> None:
    errors = "".join(f"{found[name]:10.4f}" for name in ("default", "folds", "search"))
    seconds = "".join(f"{found[f'{name}_seconds']:9.1f}" for name in ("default", "folds", "search"))
    print(f"{found['table']:24}{found['rows']:6}{errors}{seconds}", flush=True)


def print_table(done: list[dict[str, Any]]) -> None:
    print(f"\n{'':30}{'error':>20}{'':10}{'seconds':>27}")
    print(f"{'table':24}{'rows':>6}{'default':>10}{'folds':>10}{'search':>10}{'default':>9}{'folds':>9}{'search':>9}")
    for found in done:
        print_row(found)
    for other in ("default", "folds"):
        ratios = [one["search"] / one[other] for one in done if one[other] > 0 and one["search"] > 0]
        better = sum(one["search"] < one[other] for one in done)
        equal = sum(one["search"] == one[other] for one in done)
        mean = np.exp(np.mean(np.log(ratios))) if ratios else np.nan
        print(f"search against {other}: better on {better} of {len(done)}, equal on {equal}, errors {mean:.3f} times")


if __name__ == "__main__":
    main()
