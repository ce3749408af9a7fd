"""Where the Redis server is: a LOCATION, checked, and the client that is made of it. No text shows its password.

redis://[user:password@]host[:6379][/0]                    one server; rediss:// with TLS
unix://[user:password@]/path/of/the.socket[?db=0]          ... on this machine
redis+sentinel://[user:password@]host[:26379],.../service[/0]   the master that these Sentinels name
redis+cluster://[user:password@]host[:6379],...            a cluster, found by any of these nodes
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel

from django_sked.conf import RedisOptions
from django_sked.exceptions import InvalidBackend

#: Not typed by redis-py.
_node: Any = ClusterNode
_sentinel_of: Any = Sentinel

SCHEMES = (
    *("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://"),
    *("redis+cluster://", "rediss+cluster://"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A parsed LOCATION. Its text and repr are fit for logs."""

    #: "single", "sentinel" or "cluster".
    kind: str
    shown: str
    #: For a single server, the URL as redis-py takes it.
    url: str = field(default="", repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    connection: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.shown


def location(text: str) -> Location:
    """Raises InvalidBackend with one sentence that does not repeat what was given, as it may hold a password."""
    if not text.startswith(SCHEMES):
        raise InvalidBackend(f"must be a URL that begins with one of {', '.join(SCHEMES)}")
    try:
        parts = urlsplit(text)
        scheme, _, kind = parts.scheme.partition("+")
        user, _, place = parts.netloc.rpartition("@")
        options = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        if not kind:
            return _single(text, scheme, place, parts.path, options)
        hosts = tuple(_host(each, 26379 if kind == "sentinel" else 6379) for each in place.split(","))
        connection = _credentials(user) | ({"ssl": True} if scheme == "rediss" else {})
        if kind == "cluster":
            return _cluster(scheme, place, parts.path, options, hosts, connection)
        return _sentinel(scheme, place, parts.path, options, hosts, connection)
    except InvalidBackend:
        raise
    except ValueError:
        raise InvalidBackend("must be a URL, with a number for each port") from None


def _single(text: str, scheme: str, place: str, path: str, options: dict[str, str]) -> Location:
    if any("@" in each for each in (*options, *options.values())):
        raise InvalidBackend("must have a '/', '?' or '#' of a user or a password written as %2F, %3F or %23")
    if unknown := options.keys() - {"db"}:
        raise InvalidBackend(
            f"may have db in its query, and in OPTIONS['connection'] what else redis-py takes, not {min(unknown)!r}"
        )
    if not options.get("db", "0").isdecimal():
        raise InvalidBackend("must have the number of a database as db in its query")
    if scheme == "unix":
        if not path.startswith("/"):
            raise InvalidBackend("must have the path of a socket after unix://")
        return Location(kind="single", shown=f"unix://{path}", url=text)
    _host(place, 6379)
    number = path.strip("/")
    if number and not number.isdecimal():
        raise InvalidBackend("must have the number of a database as its path, such as /0")
    return Location(kind="single", shown=f"{scheme}://{place}{path}", url=text)


def _sentinel(
    scheme: str,
    place: str,
    path: str,
    options: dict[str, str],
    hosts: tuple[tuple[str, int], ...],
    connection: dict[str, Any],
) -> Location:
    service, _, number = path.strip("/").partition("/")
    if not service or (number and not number.isdecimal()):
        raise InvalidBackend("must name the service after the Sentinels, such as /mymaster or /mymaster/0")
    if unknown := options.keys() - {"sentinel_username", "sentinel_password"}:
        raise InvalidBackend(f"may have sentinel_username and sentinel_password in its query, not {min(unknown)!r}")
    shown = f"{scheme}+sentinel://{place}{path}"
    connection |= {"db": int(number or 0), "sentinel": {n.removeprefix("sentinel_"): v for n, v in options.items()}}
    return Location(kind="sentinel", shown=shown, hosts=hosts, service=unquote(service), connection=connection)


def _cluster(
    scheme: str,
    place: str,
    path: str,
    options: dict[str, str],
    hosts: tuple[tuple[str, int], ...],
    connection: dict[str, Any],
) -> Location:
    if path.strip("/") or options:
        raise InvalidBackend("must end after the nodes: a cluster has no databases with numbers")
    return Location(kind="cluster", shown=f"{scheme}+cluster://{place}", hosts=hosts, connection=connection)


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise InvalidBackend("must name a host, such as redis://localhost:6379/0")
    port = parts.port
    return parts.hostname, default_port if port is None else port


def _credentials(text: str) -> dict[str, Any]:
    if not text:
        return {}
    user, _, password = text.partition(":")
    return {"username": unquote(user) or None, "password": unquote(password) or None}


def refuse(alias: str, where: Location, options: RedisOptions) -> None:
    """Raise InvalidBackend when what each of them allows does not go together."""
    if ":" in alias:
        raise InvalidBackend(f"SKED[{alias!r}] must have no ':' in its alias, by which the names of its keys begin.")
    refuse_unknown(f"SKED[{alias!r}]['OPTIONS']['connection']", where, options.connection)
    if options.replicas and options.replica_timeout > options.socket_timeout:
        raise InvalidBackend(
            f"SKED[{alias!r}]['OPTIONS']['replica_timeout'] must be at most the socket_timeout of "
            f"{options.socket_timeout} seconds, not {options.replica_timeout}."
        )


def refuse_unknown(name: str, where: Location, connection: Mapping[str, Any]) -> None:
    """Raise InvalidBackend when connections to there do not take these keyword arguments."""
    kind = _connection_class(where)
    known = {name for each in kind.__mro__ for name in signature(each.__init__).parameters} - _OWN
    if unknown := connection.keys() - known:
        raise InvalidBackend(
            f"{name} must have arguments of redis-py's {kind.__name__} that the location leaves open, "
            f"not {min(unknown)!r}."
        )


#: Arguments of connections that LOCATION gives, and those that are none.
_OWN = {"self", "args", "kwargs", "host", "port", "path", "db"}


def _connection_class(where: Location) -> Any:
    if where.shown.startswith("unix"):
        return UnixDomainSocketConnection
    return SSLConnection if where.shown.startswith("rediss") else Connection


def _kept_alive() -> dict[str, Any]:
    """Have TCP notice within half a minute that the other end is gone without a word, also where nothing is sent."""
    times = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    known = {getattr(socket, name): value for name, value in times.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": known}


def client(where: Location, options: RedisOptions) -> Any:
    """A client for many threads. It tries nothing twice by itself: what was asked may have been done already."""
    # Bytes that are no text come as lone surrogates: one record that cannot be read is no broken answer.
    text = {"decode_responses": True, "encoding_errors": "surrogateescape"}
    once = {"retry": Retry(NoBackoff(), 0)}
    limits = {"socket_timeout": options.socket_timeout, "socket_connect_timeout": options.connect_timeout}
    alive = {} if _connection_class(where) is UnixDomainSocketConnection else _kept_alive()
    keywords = {**text, **once, **limits, **alive, **options.connection}
    if where.kind == "single":
        return Redis(connection_pool=ConnectionPool.from_url(where.url, **keywords))
    given = dict(where.connection)
    if where.kind == "cluster":
        nodes = [_node(host, port) for host, port in where.hosts]
        return RedisCluster(startup_nodes=nodes, **{**keywords, **given})
    sentinels = {**once, **limits, **alive, **given.pop("sentinel")}
    if "ssl" in given:
        sentinels["ssl"] = True
    watchers: Any = _sentinel_of(where.hosts, sentinel_kwargs=sentinels)
    return watchers.master_for(where.service, **keywords, **given)
