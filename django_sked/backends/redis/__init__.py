"""Messages in Redis or Valkey."""

from __future__ import annotations

try:
    import redis as _redis  # noqa: F401
except ImportError as error:
    raise ImportError("it needs redis-py, as by pip install django-sked[redis]") from error

from django_sked.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
