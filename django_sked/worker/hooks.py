"""Context managers around each call of a receiver, for logging context, tenants and tracing, by dotted paths.

A hook that fails on the way in fails the attempt: without it the receiver must not be called. One that fails on the way
out is logged, no more: the receiver has done its work, and calling it again would do it twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from django.utils.module_loading import import_string

from django_sked.exceptions import InvalidBackend
from django_sked.models import ScheduledMessage
from django_sked.worker import failures

logger = logging.getLogger("django_sked.worker")

Hook = Callable[[ScheduledMessage], AbstractContextManager[Any]]
#: Those that were entered, with their paths.
Entered = list[tuple[str, AbstractContextManager[Any]]]


class Hooks:
    """The hooks of one backend, the outermost first. Raises InvalidBackend for a path that leads to none."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._hooks = [(path, _imported(path)) for path in paths]

    def call(self, message: ScheduledMessage, function: Callable[..., Any], /, **kwargs: Any) -> Any:
        with self.around(message):
            return function(**kwargs)

    @contextmanager
    def around(self, message: ScheduledMessage) -> Iterator[None]:
        """Nothing that they do with an error of the receiver, such as to swallow it, changes what becomes of it."""
        entered = self.enter(message)
        try:
            yield
        except BaseException as error:
            self.leave(message, entered, error)
            raise
        self.leave(message, entered, None)

    def enter(self, message: ScheduledMessage) -> Entered:
        entered: Entered = []
        try:
            for path, hook in self._hooks:
                manager = hook(message)
                manager.__enter__()
                entered.append((path, manager))
        except BaseException as error:
            self.leave(message, entered, error)
            raise
        return entered

    def leave(
        self,
        message: ScheduledMessage,
        entered: Entered,
        error: BaseException | None,
    ) -> None:
        """Leave all that were entered, whatever comes of each."""
        seen = error
        for path, manager in reversed(entered):
            try:
                manager.__exit__(*((None, None, None) if seen is None else (type(seen), seen, seen.__traceback__)))
            except Exception as failure:
                if failure is not seen:
                    failures.log(logger, failure, message, "hook_failed hook=%s id=%s", path, message.pk)
            except BaseException as other:  # such as the end of the time that the receiver had
                seen = other
        if seen is not None and seen is not error:
            raise seen


def of(paths: Collection[str]) -> Hooks | None:
    """None where there are none, for each message asks."""
    return Hooks(paths) if paths else None


def _imported(path: str) -> Hook:
    try:
        hook: Hook = import_string(path)
    except Exception as error:
        raise InvalidBackend(f"around_delivery: {path!r} cannot be imported: {error}.") from error
    if not callable(hook):
        raise InvalidBackend(f"around_delivery: {path!r} must be a function of the message, not {hook!r}.")
    return hook
