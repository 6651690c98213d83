"""Lives through simulated worlds by seed, and says which of them broke a rule of the ledger.

python -m tests.simulation --seed 44              one of them, again, with its misfortunes and all that is broken
python -m tests.simulation --seeds 3000 --first 1 many
python -m tests.simulation --mutations            which seed finds each of the bugs that are put in on purpose
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.mutations import MUTATIONS, sown
from tests.simulation.scenario import trial_of, without
from tests.simulation.trial import live_through

_MOST_SEEDS = 200


def main() -> int:
    """Return 0 when every rule was kept (or every bug found)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="only this one, told at length")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--mutations", action="store_true", help="put each known bug in, and look which seed finds it")
    given = parser.parse_args()
    if given.mutations:
        return _find_mutations()
    if given.seed is not None:
        return _tell(given.seed)
    began, broken = time.monotonic(), []
    for seed in range(given.first, given.first + given.seeds):
        problems = live_through(trial_of(seed)).problems
        if problems:
            broken.append(seed)
            print(f"seed {seed}: {problems[0]}", flush=True)
            print(f"  again: python -m tests.simulation --seed {seed}", flush=True)
    verdict = f"{len(broken)} broke a rule: {broken}" if broken else "every rule kept"
    print(f"{given.seeds} simulated worlds in {time.monotonic() - began:.0f} s: {verdict}")
    return bool(broken)


def _tell(seed: int) -> int:
    trial = trial_of(seed)
    print(f"seed {seed}: {trial.daemons} daemons, {trial.settings.slots} threads each, from {trial.begin}")
    for job in trial.jobs:
        policies = f"{job.catch_up.mode.value}, {job.overlap.value}, deadline {job.start_deadline}, jitter {job.jitter}"
        print(f"  {job.name}: {job.schedule} in {job.timezone}, queue {job.queue}, {policies}")
    for it in sorted(trial.misfortunes, key=lambda each: each.after):
        print(f"  after {it.after}: {it.what} of daemon{it.which}, {it.lasting.total_seconds():g} s")
    problems = live_through(trial).problems
    for problem in problems:
        print(problem)
    if problems:
        left = trial
        for number in reversed(range(len(trial.misfortunes))):
            fewer = without(left, number)
            if live_through(fewer).problems:
                left = fewer
        print("it takes: " + (", ".join(f"{it.what} after {it.after}" for it in left.misfortunes) or "nothing at all"))
    print("broken" if problems else "every rule kept")
    return bool(problems)


def _find_mutations() -> int:
    missed = 0
    for mutation in MUTATIONS:
        for seed in range(_MOST_SEEDS):
            with sown(mutation):
                problems = live_through(trial_of(seed)).problems
            if problems:
                print(f"seed {seed} finds: {mutation.name}\n  {problems[0]}", flush=True)
                break
        else:
            missed += 1
            print(f"NOT FOUND: {mutation.name}", flush=True)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
