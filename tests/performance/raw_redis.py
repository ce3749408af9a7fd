"""The yardstick: what redis-py does on this server at this moment, with keys and scripts as small as can be."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from tests.performance import usage
from tests.performance.figures import Figures

#: The ids of what waits and of what is claimed, by time, and the payloads by id.
_KEYS = ("raw:due", "raw:claimed", "raw:payloads")
_ADD = """
for position = 1, #ARGV, 3 do
    redis.call('ZADD', KEYS[1], ARGV[position + 1], ARGV[position])
    redis.call('HSET', KEYS[3], ARGV[position], ARGV[position + 2])
end
"""
_CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
if #ids == 0 then
    return {{}, {}}
end
redis.call('ZREM', KEYS[1], unpack(ids))
local claimed = {}
for position, id in ipairs(ids) do
    claimed[2 * position - 1], claimed[2 * position] = now, id
end
redis.call('ZADD', KEYS[2], unpack(claimed))
return {ids, redis.call('HMGET', KEYS[3], unpack(ids))}
"""
_SETTLE = """
redis.call('ZREM', KEYS[2], unpack(ARGV))
redis.call('HDEL', KEYS[3], unpack(ARGV))
"""
_PAYLOAD = '{"i": 1, "t0": 0.0}'
#: Messages of one call, whose values a script can unpack.
_LOT = 1000


@contextmanager
def _scripts() -> Iterator[tuple[Any, Any, Any]]:
    import redis

    client = redis.Redis.from_url(settings.SKED["default"]["LOCATION"])
    with client:
        scripts = [client.register_script(text) for text in (_ADD, _CLAIM, _SETTLE)]
        yield tuple(lambda *args, script=script: script(keys=_KEYS, args=args) for script in scripts)  # type: ignore[misc]
        client.delete(*_KEYS)


def drain(messages: int, batch: int = 500) -> Figures:
    """Claim and delete, in batches; microseconds of CPU for each message are those here and in the server together."""
    with _scripts() as (add, claim, settle):
        _add(add, range(messages), _LOT)
        here, there, start = time.process_time(), usage.server_cpu(), time.perf_counter()
        while ids := claim(batch)[0]:
            settle(*ids)
        per_s = messages / (time.perf_counter() - start)
        used = time.process_time() - here + usage.server_cpu() - there
    return {"raw_per_s": per_s, "raw_cpu_us": used / messages * 1e6}


def insert(messages: int) -> float:
    """One call each; messages a second."""
    with _scripts() as (add, _, _):
        start = time.perf_counter()
        for number in range(messages):
            add(number, 0, _PAYLOAD)
        return messages / (time.perf_counter() - start)


def bulk(messages: int, lot: int) -> float:
    """A call for each lot; messages a second."""
    with _scripts() as (add, _, _):
        start = time.perf_counter()
        _add(add, range(messages), lot)
        return messages / (time.perf_counter() - start)


def _add(add: Any, numbers: Iterable[int], lot: int) -> None:
    given = list(numbers)
    for first in range(0, len(given), lot):
        add(*(value for number in given[first : first + lot] for value in (number, 0, _PAYLOAD)))
