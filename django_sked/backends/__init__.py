"""`message_backends["alias"]`: the backends of the SKED setting, used like `django.core.cache.caches`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from django_sked import conf, sealing
from django_sked.arguments import shown
from django_sked.exceptions import InvalidBackend

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend
    from django_sked.sealing import Seal

__all__ = ["DEFAULT_ALIAS", "message_backends"]

DEFAULT_ALIAS = "default"


class MessageBackends:
    """One backend object per alias and process.

    Django's BaseConnectionHandler makes one object per thread, for connections that must not be shared. A backend is
    shared on purpose: its methods may be called from any thread, and the memory backend *is* its object.
    """

    def __init__(self) -> None:
        self._backends: dict[str, BaseBackend] = {}
        self._seals: dict[str | None, Seal | None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(conf.aliases())

    def all(self) -> list[BaseBackend]:
        return [self[alias] for alias in self]

    def __getitem__(self, alias: str) -> BaseBackend:
        """Raises InvalidBackend for what is no alias of the setting."""
        if not isinstance(alias, str):
            raise InvalidBackend(f"backend must be an alias of the SKED setting, not {shown(alias)}.")
        backend = self._backends.get(alias)
        if backend is None:
            backend = self._backends.setdefault(alias, self._create(alias))
        return backend

    def _create(self, alias: str) -> BaseBackend:
        params = conf.aliases().get(alias)
        if params is None:
            raise InvalidBackend(f"There is no SKED backend {alias!r}; there are: {', '.join(self)}.")
        try:
            backend_class: type[BaseBackend] = import_string(params["BACKEND"])
        except Exception as error:
            path = params["BACKEND"]
            raise InvalidBackend(f"SKED[{alias!r}]['BACKEND']: {path!r} cannot be imported: {error}.") from error
        if not isinstance(getattr(backend_class, "options_class", None), type):
            raise InvalidBackend(f"SKED[{alias!r}]['BACKEND']: {params['BACKEND']!r} is no backend of messages.")
        if missing := sorted(getattr(backend_class, "__abstractmethods__", ())):
            path = params["BACKEND"]
            raise InvalidBackend(f"SKED[{alias!r}]['BACKEND']: {path!r} lacks the methods {', '.join(missing)}.")
        return backend_class(conf.parse(alias, params, backend_class.options_class))

    def of_database(self, using: str | None) -> BaseBackend:
        """The backend whose messages are rows of this database; the default one, if none is named or it has none."""
        default = self[DEFAULT_ALIAS]
        if using is None or default.database == using:
            return default
        for backend in self.all():
            if backend.database == using:
                return backend
        if default.database is None:
            return default
        raise InvalidBackend(f"No SKED backend stores its messages in the database {using!r}.")

    def seal_of(self, using: str | None) -> Seal | None:
        """What encrypts the payloads in this database, if anything does."""
        if using not in self._seals:
            found = (backend.options.payload_cipher for backend in self.all() if backend.database == using)
            self._seals[using] = next(found, None)
        return self._seals[using]

    def opened(self, value: Any) -> Any:
        """A stored JSON value: out of its envelope, by whatever backend has the key, or as it is. See `sealing`."""
        if not sealing.is_envelope(value):
            return value
        seals = (backend.options.payload_cipher for backend in self.all())
        return sealing.opened(value, [seal for seal in seals if seal is not None])

    def reset(self) -> None:
        """Forget every backend, as when the setting has changed."""
        self._backends, self._seals = {}, {}


message_backends = MessageBackends()


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in {"SKED", "DATABASES", "DATABASE_ROUTERS"}:
        message_backends.reset()


setting_changed.connect(_on_setting_changed, dispatch_uid="django_sked.reset_backends")
# After a fork a lock may be held by a thread that is not there any more, and what listens or waits is the parent's.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=message_backends.reset)
