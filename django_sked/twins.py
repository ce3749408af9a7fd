"""Asynchronous twins of public methods: the same name with an `a` before it, the same arguments and answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from asgiref.sync import sync_to_async

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


def twin(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """The method, to be awaited: it runs in the thread in which Django keeps this context's connections."""

    @functools.wraps(method)
    async def call(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        return await sync_to_async(method, thread_sensitive=True)(self, *args, **kwargs)

    call.__name__ = f"a{method.__name__}"
    call.__doc__ = f"Asynchronous twin of `{method.__name__}()`."
    return cast("Callable[Concatenate[S, P], Coroutine[Any, Any, R]]", call)
