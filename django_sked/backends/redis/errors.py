"""Which errors are part of a normal day: to be tried again, not to be reported as bugs."""

from __future__ import annotations

from redis import exceptions

from django_sked.exceptions import BackendFull

_KINDS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
    exceptions.MasterDownError,
    exceptions.MovedError,
    exceptions.AskError,
    exceptions.TryAgainError,
    exceptions.OutOfMemoryError,
    BackendFull,
)
_WORDS = (
    *("BUSY ", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "ASK ", "NOREPLICAS", "OOM ", "READONLY"),
    *("TRYAGAIN", "UNBLOCKED", "UNKILLABLE"),
)


def is_expected(error: BaseException) -> bool:
    """Will the same call probably succeed later: a lost connection, a server that is starting, full or read only?"""
    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return isinstance(error, exceptions.AuthenticationError)
    if isinstance(error, _KINDS):
        return True
    return isinstance(error, exceptions.ResponseError) and str(error).startswith(_WORDS)
