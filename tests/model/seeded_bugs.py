"""Stores that each break one promise. The machine is only worth something while it catches every one of them."""

from __future__ import annotations

from tests.model import bugs_of_people, bugs_of_workers
from tests.model.bug import Bug

BUGS: list[type[Bug]] = Bug.__subclasses__()
#: Enough to show that the machine sees through a database as well.
DATABASE_BUGS: list[type[Bug]] = [
    bugs_of_workers.ClaimsATickEarly,
    bugs_of_workers.ClaimsWithoutPriority,
    bugs_of_workers.SettlesWithoutAFence,
    bugs_of_workers.RescuesWithoutANewToken,
    bugs_of_workers.RescuesTheCancelled,
    bugs_of_workers.FreesTheKeyAtTheClaim,
    bugs_of_workers.PrunesTheLiving,
    bugs_of_people.LosesWhatItReplaces,
]
