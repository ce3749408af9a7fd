"""The worker: claim -> dispatch -> settle, with leases, rescue and retention around it."""

from __future__ import annotations

from django_sked.worker.worker import EXIT_ABANDONED, EXIT_STUCK, Worker

__all__ = ["EXIT_ABANDONED", "EXIT_STUCK", "Worker"]
