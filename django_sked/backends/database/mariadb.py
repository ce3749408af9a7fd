"""What MariaDB has beyond the reference: a limit for transactions that are idle."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from django.db import Error, connections

from django_sked.backends.database.claiming import SkipLocked
from django_sked.backends.database.plain import PlainSQL

#: Seconds: the most that idle_transaction_timeout takes.
_MOST = 31_536_000


class MariaDB(PlainSQL, SkipLocked):
    """Limits the receiver's transaction in whole seconds, by a setting of the session, which is put back after it."""

    @contextlib.contextmanager
    def receiver_transaction(self, seconds: float) -> Iterator[None]:
        connection = connections[self.using]
        limit = min(max(1, math.ceil(seconds)), _MOST)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET @sked_idle = @@SESSION.idle_transaction_timeout, SESSION idle_transaction_timeout = {limit}"
            )
        session = connection.connection
        try:
            with super().receiver_transaction(seconds):
                yield
        finally:
            # A session that is gone has nothing to put back.
            if connection.connection is session:
                with contextlib.suppress(Error), connection.cursor() as cursor:
                    cursor.execute("SET SESSION idle_transaction_timeout = @sked_idle")
