"""How long hypothesis looks for a step too many: SKED_MODEL_EXAMPLES=500x40 is 500 programs of 40 steps each.

Without it a run is short and always the same; with it, another one each time.
"""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Make, StoreMachine

ASKED = os.environ.get("SKED_MODEL_EXAMPLES")
EXAMPLES, STEPS = map(int, (ASKED or "60x30").split("x"))
#: Programs of one search. After the first ten hypothesis goes on with variations of what it has, which find less here
#: than new ones do.
FRESH = 12
#: Databases are as slow as they are, and a step that has nothing to do does nothing.
_CHECKS = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]


def run(make: Make, *, examples: int = EXAMPLES) -> None:
    """Raises the first `Violation`, after a search for the shortest program that leads to one."""
    _search(make, examples, STEPS, settings(phases=[Phase.generate, Phase.shrink], print_blob=False))


def hunt(make: Make, *, examples: int) -> None:
    """The same for a store that is known to be broken: no search for a shorter program, and no report."""
    _search(
        make, examples, 30, settings(phases=[Phase.generate], verbosity=Verbosity.quiet, report_multiple_bugs=False)
    )


def _search(make: Make, examples: int, steps: int, how: settings) -> None:
    how = settings(how, stateful_step_count=steps, database=None, deadline=None, suppress_health_check=_CHECKS)
    first = 0 if ASKED is None else random.getrandbits(32)
    for start in range(0, examples, FRESH):

        def machine() -> StoreMachine:
            return StoreMachine(make)

        count = min(FRESH, examples - start)
        run_state_machine_as_test(seed(first + start)(machine), settings=settings(how, max_examples=count))  # type: ignore[arg-type]
