"""Context managers around each call of a receiver, for logging context, tenants and tracing, by dotted paths.

A hook that fails on the way in fails the attempt: without it the receiver must not be called. One that fails on the way
out is logged, no more: the receiver has done its work, and calling it again would do it twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from django.utils.module_loading import import_string

from django_sked.exceptions import InvalidBackend
from django_sked.models import ScheduledMessage

logger = logging.getLogger("django_sked.worker")

Hook = Callable[[ScheduledMessage], AbstractContextManager[Any]]


class Hooks:
    """The hooks of one backend, the outermost first. Raises InvalidBackend for a path that leads to none."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._hooks = [(path, _imported(path)) for path in paths]

    def __bool__(self) -> bool:
        return bool(self._hooks)

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

    def enter(self, message: ScheduledMessage) -> list[tuple[str, AbstractContextManager[Any]]]:
        entered: list[tuple[str, AbstractContextManager[Any]]] = []
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
        entered: list[tuple[str, AbstractContextManager[Any]]],
        error: BaseException | None,
    ) -> None:
        kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
        for path, manager in reversed(entered):
            try:
                manager.__exit__(kind, error, trace)
            except Exception as failure:
                if failure is not error:
                    logger.exception("hook_failed hook=%s id=%s", path, message.pk)


def _imported(path: str) -> Hook:
    try:
        hook: Hook = import_string(path)
    except Exception as error:
        raise InvalidBackend(f"around_delivery: {path!r} cannot be imported: {error}.") from error
    if not callable(hook):
        raise InvalidBackend(f"around_delivery: {path!r} must be a function of the message, not {hook!r}.")
    return hook
