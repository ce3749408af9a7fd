"""Messages as rows of a Django database."""

from __future__ import annotations

from django_sked.backends.database.backend import DatabaseBackend

__all__ = ["DatabaseBackend"]
