"""One connection to the server for each thread, as Django has for its databases.

Not a pool's: taking one out and putting it back took twice as long as the call itself. A thread that ends closes its.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Any
from weakref import WeakValueDictionary

from redis import exceptions
from redis.crc import key_slot

from django_sked.backends.redis.connecting import Location, client
from django_sked.conf import RedisOptions

try:
    import hiredis
except ImportError:
    pack_command: Any = None
else:
    pack_command = hiredis.pack_command

#: A cluster has moved the slot, or does not know who has it; or the address leads to another primary by now.
_ELSEWHERE = (exceptions.MovedError, exceptions.ClusterDownError, exceptions.ReadOnlyError)
#: What redis-py raises when no node of a cluster answers is no RedisError.
AWAY = (exceptions.RedisError, exceptions.RedisClusterException)
#: The node of a cluster that was asked is perhaps gone, or none was known that has the slot.
_GONE = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.SlotNotCoveredError)


class _Own:
    """The connection of one thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.connection: Any = None
        #: Of a cluster, the node that it leads to.
        self.node = ""
        #: Something was sent whose answer has not been read: whoever asks next would take it for theirs.
        self.owes = False

    def drop(self) -> None:
        connection, self.connection, self.owes = self.connection, None, False
        if connection is not None:
            connection.disconnect()


class _Thread(threading.local):
    own: _Own | None = None


class Connections:
    """Sends commands that are about one slot, and only once: what was sent may have been done."""

    def __init__(self, where: Location, options: RedisOptions, key: str) -> None:
        self._where = where
        self._options = options
        self._key = key
        self._slot = key_slot(key.encode())
        self._lock = threading.Lock()
        self._client: Any = None
        self._thread = _Thread()
        self._owned: WeakValueDictionary[int, _Own] = WeakValueDictionary()

    def client(self) -> Any:
        """The client of redis-py, made at the first call."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._made()
        return self._client

    def _made(self) -> Any:
        try:
            return client(self._where, self._options)
        except exceptions.RedisClusterException as error:
            # Anew: the frames of this one have the password among their variables, which error pages show.
            raise exceptions.RedisClusterException(*error.args) from None

    def execute(self, *command: Any) -> Any:
        """Raises what redis-py raises; the connection is dropped unless the server itself has answered."""
        try:
            return self._execute(command)
        except _ELSEWHERE:
            self._own().drop()
            if self._where.kind == "cluster":
                self.client().execute_command("EXISTS", self._key)  # by which redis-py looks who has it now
            return self._execute(command)

    def _execute(self, command: tuple[Any, ...]) -> Any:
        self.send(*command)
        return self.receive()

    def send(self, *command: Any) -> None:
        """Ask, and do not wait: `receive` has the answer, which this thread takes before it asks for anything else."""
        try:
            own = self._ready()
            own.owes = True
            own.connection.send_packed_command(_packed(own.connection, command), check_health=False)
        except BaseException as error:
            self._lost(error)
            raise

    def receive(self) -> Any:
        """The answer to what was sent; raises what redis-py raises."""
        own = self._own()
        try:
            answer = own.connection.read_response()
        except exceptions.ResponseError:
            own.owes = False
            raise
        except BaseException as error:
            self._lost(error)
            raise
        own.owes = False
        return answer

    def _lost(self, error: BaseException) -> None:
        self._own().drop()
        if self._where.kind == "cluster" and isinstance(error, _GONE):
            self._look_again()

    def _ready(self) -> _Own:
        own = self._own()
        if own.owes:
            own.drop()
        if self._where.kind != "cluster":
            if own.connection is None:
                own.connection = _opened(self.client().connection_pool)
            return own
        cluster = self.client()
        node = cluster.nodes_manager.get_node_from_slot(self._slot)
        if own.connection is None or own.node != node.name:
            own.drop()
            own.connection = _opened(cluster.get_redis_connection(node).connection_pool)
            own.node = node.name
        return own

    def _look_again(self) -> None:
        """A node is gone: ask the others who has its slots now."""
        try:
            self.client().nodes_manager.initialize()
        except AWAY:
            pass  # nobody knows yet; what has failed says so

    def _own(self) -> _Own:
        own = self._thread.own
        if own is None or own.pid != os.getpid():
            own = self._thread.own = _Own()
            with self._lock:
                self._owned[threading.get_ident()] = own
        return own

    def interrupt(self, ident: int) -> bool:
        """Cut the connection of a thread, so that a call which waits for the server fails; true if there was one."""
        with self._lock:
            own = self._owned.get(ident)
        raw: Any = getattr(own.connection, "_sock", None) if own is not None else None
        try:
            raw.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError):
            return False  # not open, or already cut
        return True


def _packed(connection: Any, command: tuple[Any, ...]) -> Any:
    """Without the look at each argument that redis-py takes: ours are text, bytes and whole numbers."""
    return [pack_command(command)] if pack_command is not None else connection.pack_command(*command)


def _opened(pool: Any) -> Any:
    # Not by the pool, which counts those that it has made, and after a hundred makes no more.
    connection = pool.connection_class(**pool.connection_kwargs)
    try:
        # By itself it would connect when it is used, but not to the master that Sentinel names.
        connection.connect()
    except exceptions.AuthenticationError as error:
        raise exceptions.AuthenticationError(*error.args) from None  # as above
    return connection
