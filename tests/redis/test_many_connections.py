"""Threads come and go, and a server may be away for long: no number of connections is the last one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import exceptions

from django_sked.backends.redis import RedisBackend

#: More than a pool of redis-py makes.
MANY = 150


def test_after_many_vain_tries_a_server_is_found_again(server: Any, make: Callable[..., RedisBackend]) -> None:
    backend = make(server.location)
    backend.read_now()
    server.crash()

    for _ in range(MANY):
        with pytest.raises(exceptions.ConnectionError):
            backend.read_now()
    server.start()

    assert backend.read_now()


def test_many_threads_in_turn_each_have_a_connection(server: Any, make: Callable[..., RedisBackend]) -> None:
    backend = make(server.location)
    answers: list[object] = []

    for _ in range(MANY):
        thread = threading.Thread(target=lambda: answers.append(backend.read_now()))
        thread.start()
        thread.join()

    assert len(answers) == MANY
