"""What a worker was asked for: its arguments, then the SKED setting, then defaults; checked once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from django_sked import arguments
from django_sked.conf import BackendSettings, QueueSettings
from django_sked.exceptions import InvalidMessage, Misconfigured

DEFAULT_CONCURRENCY = 4
#: Seconds by which messages are claimed ahead of their time, where the SKED setting does not say.
DEFAULT_LOOKAHEAD = 0.2
MOST_CONCURRENCY = 1000
#: ... and messages until a worker exits, or a child is replaced.
MOST_MESSAGES = 1_000_000

Queues = Mapping[str, int | None] | Collection[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """The checked arguments of `Worker`."""

    #: Queue -> threads asked for; None serves every queue of the backend, less those in `exclude_queues`.
    queues: Mapping[str, int | None] | None
    exclude_queues: frozenset[str]
    #: Threads of a queue that has no number of its own, neither here nor in the setting.
    concurrency: int | None
    batch_size: int
    poll_interval: float
    lease: float
    burst: bool
    max_messages: int | None
    #: What the SKED setting says of each queue.
    configured: Mapping[str, QueueSettings]

    def serves(self, queue: str) -> bool:
        return queue not in self.exclude_queues if self.queues is None else queue in self.queues

    def size_of(self, queue: str) -> int:
        """The threads of a queue: as asked for it by name, else as the setting has it, else as asked for all."""
        asked = (self.queues or {}).get(queue)
        return asked or self._settings_of(queue).concurrency or self.concurrency or DEFAULT_CONCURRENCY

    @property
    def most_abandoned(self) -> int:
        """Threads, in all queues together, that receivers may keep for ever before a new process is needed."""
        return self.concurrency or DEFAULT_CONCURRENCY

    def lookahead_of(self, queue: str) -> float:
        """Seconds by which messages of a queue are claimed ahead; none in a burst, which ends when nothing is due."""
        configured = self._settings_of(queue).lookahead
        return 0.0 if self.burst else DEFAULT_LOOKAHEAD if configured is None else configured

    def _settings_of(self, queue: str) -> QueueSettings:
        return self.configured.get(queue) or QueueSettings()


def checked(
    settings: BackendSettings,
    *,
    queues: Queues | None,
    exclude_queues: Collection[str],
    concurrency: int | None,
    batch_size: int | None,
    poll_interval: float | None,
    lease: float | None,
    burst: bool,
    max_messages: int | None,
) -> WorkerOptions:
    """The options of a worker of this backend; raises Misconfigured for the first wrong one."""
    defaults = settings.options
    if queues is not None and exclude_queues:
        raise Misconfigured("Give either queues or exclude_queues, not both.")
    if not isinstance(burst, bool):
        raise Misconfigured(f"burst must be True or False, not {burst!r}.")
    if max_messages is not None:
        max_messages = _whole(max_messages, "max_messages", MOST_MESSAGES)
    return WorkerOptions(
        queues=None if queues is None else _queues(queues),
        exclude_queues=frozenset(_names(exclude_queues, "exclude_queues")),
        concurrency=None if concurrency is None else _whole(concurrency, "concurrency"),
        batch_size=_whole(defaults.batch_size if batch_size is None else batch_size, "batch_size", 5000),
        poll_interval=_seconds(
            defaults.poll_interval if poll_interval is None else poll_interval, "poll_interval", 0.01
        ),
        lease=_seconds(defaults.lease if lease is None else lease, "lease", 0.5),
        burst=burst,
        max_messages=max_messages,
        configured=settings.queues,
    )


def _queues(value: Queues) -> Mapping[str, int | None]:
    names = _names(value, "queues")
    if not names:
        raise Misconfigured("queues must name at least one queue.")
    if not isinstance(value, Mapping):
        return dict.fromkeys(names)
    return {
        name: None if size is None else _whole(size, f"the threads of the queue {name!r}")
        for name, size in value.items()
    }


def _names(value: Collection[str], what: str) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise Misconfigured(f"{what} must be a list of names, not {value!r}.")
    try:
        return [arguments.queue(name) for name in value]
    except InvalidMessage as error:
        raise Misconfigured(f"{what}: {error}") from None


def _whole(value: object, what: str, most: int = MOST_CONCURRENCY) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Misconfigured(f"{what} must be a whole number from 1 to {most}, not {value!r}.")
    return value


def _seconds(value: object, what: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 3600:
        raise Misconfigured(f"{what} must be seconds from {least} to 3600, not {value!r}.")
    return float(value)
