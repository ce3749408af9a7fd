"""What is stored encrypted: a JSON value in its envelope, and how it is put in and taken out.

An envelope is JSON itself, `{"$django_sked.sealed": "<text>"}`, so every store keeps it like any other value. What
was stored in the clear is told by its form and read as it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from django.utils.module_loading import import_string

from django_sked import payloads
from django_sked.exceptions import InvalidBackend

#: The only key of an envelope.
NAME = payloads.RESERVED
#: How the text of an envelope begins, in every store.
ENVELOPE = f'{{"{NAME}"'
#: Fields of a message that are sealed.
SEALED = ("payload", "result", "verdict")


class Cipher(Protocol):
    """What `payload_cipher` may lead to. Called by many threads."""

    def encrypt(self, data: bytes, /) -> bytes:
        """ASCII, such as Base64."""

    def decrypt(self, data: bytes, /) -> bytes:
        """Raises any Exception for what it cannot open."""


class Sealed(dict[str, Any]):
    """Stands for a value that none of the keys here opens: its envelope, which is stored again as it is."""


@dataclass(frozen=True, eq=False)
class Seal:
    """A cipher that is made when it is first needed: by Fernet keys, or by a dotted path."""

    #: The first one encrypts, each one decrypts.
    keys: Sequence[str | bytes] = field(default=(), repr=False)
    path: str = ""

    @cached_property
    def cipher(self) -> Cipher:
        """Raises InvalidBackend, which never has a key in its text."""
        return _named(self.path) if self.path else _fernet(self.keys)

    def __call__(self, value: Any) -> Any:
        """The envelope of a JSON value; None stays None, and an envelope that was not opened what it is."""
        if value is None or isinstance(value, Sealed):
            return value
        token = self.cipher.encrypt(payloads.dumps(value).encode())
        if not token.isascii():
            raise InvalidBackend("The cipher of payload_cipher must encrypt to ASCII, such as Base64.")
        return {NAME: token.decode("ascii")}

    def opened(self, envelope: dict[str, Any]) -> Any:
        """The value; raises whatever the cipher does."""
        return payloads.decode(self.cipher.decrypt(envelope[NAME].encode("ascii")).decode())


def sealed(seal: Seal | None, value: Any) -> Any:
    return value if seal is None else seal(value)


def is_unopened(message: Any) -> bool:
    """Is there anything in this message that none of the keys here has opened?"""
    values = message.__dict__
    return any(isinstance(values.get(name), Sealed) for name in SEALED)


def carried(message: Any) -> dict[str, Any]:
    """What there is in this message that is to be sealed."""
    return {name: getattr(message, name) for name in SEALED if getattr(message, name) is not None}


def is_envelope(value: object) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(NAME), str)


def opened(value: Any, seals: Iterable[Seal]) -> Any:
    """What is in an envelope, by the first of these that opens it; without any, `Sealed`. Other values as they are."""
    if not is_envelope(value):
        return value
    for seal in seals:
        try:
            return seal.opened(value)
        except Exception:
            continue
    return Sealed(value)


def _fernet(keys: Sequence[str | bytes]) -> Cipher:
    try:
        fernet = importlib.import_module("cryptography.fernet")
    except ImportError as error:
        raise InvalidBackend(
            f"payload_cipher with keys needs the package cryptography: pip install 'django-sked[cipher]' ({error})"
        ) from error
    found = []
    for number, key in enumerate(keys, 1):
        try:
            found.append(fernet.Fernet(key))
        except Exception:
            # Without the cause, whose traceback may show the key.
            raise InvalidBackend(
                f"key {number} of {len(keys)} is no Fernet key, which is 32 bytes as URL-safe Base64, as "
                "cryptography.fernet.Fernet.generate_key() makes them"
            ) from None
    cipher: Cipher = fernet.MultiFernet(found)
    return cipher


def _named(path: str) -> Cipher:
    try:
        found: Any = import_string(path)
        if isinstance(found, type) or not hasattr(found, "encrypt"):
            found = found()
    except Exception as error:
        raise InvalidBackend(f"payload_cipher: {path!r} cannot be used: {type(error).__name__}: {error}") from error
    if not callable(getattr(found, "encrypt", None)) or not callable(getattr(found, "decrypt", None)):
        raise InvalidBackend(
            f"payload_cipher: {path!r} must lead to an object with encrypt(bytes) and decrypt(bytes), or to a class or "
            "function that makes one"
        )
    cipher: Cipher = found
    return cipher
