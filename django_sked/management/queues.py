"""What commands say about the queue that they were given."""

from __future__ import annotations

from django_sked.backends.base import BaseBackend
from django_sked.explaining import workers_of


def doubt(backend: BaseBackend, queue: str) -> str | None:
    """A sentence where nothing is known of such a queue, which may be written wrongly; it is obeyed all the same."""
    if _is_known(backend, queue):
        return None
    return f"No setting or worker names the queue {queue}, and no message is scheduled, claimed or dead in it."


def _is_known(backend: BaseBackend, queue: str) -> bool:
    """Is it written right, as far as can be seen? True where nothing can be."""
    if queue in {"default", *backend.settings.queues} or not backend.reaches_other_processes:
        return True
    try:
        served = {name for worker in workers_of(backend) or () for name in worker.queues or ()}
        return queue in served or queue in backend.backlog()
    except Exception:  # whatever a store raises that is away
        return True
