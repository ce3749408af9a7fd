"""A payload as a form shows it: in the place of each value that `redact` hides, a mark that stands for this very value.

The mark can be left, moved and taken away; what is typed in its place takes the place of the value. It is made with the
SECRET_KEY, so that nothing can be guessed by it, and a value that somebody has changed meanwhile has another one.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from django_sked.redaction import MARK, MARKS, Path, Redaction

#: What a diff shows for a value that was typed where a hidden one was, or may be.
REPLACED = "[redacted, another one]"


class Hiding:
    """`name` is whose payload it is; `value` is the payload, None where it is about several."""

    def __init__(self, redaction: Redaction, name: str = "", value: Any = None) -> None:
        self._redaction = redaction
        self._name = name
        self._hidden = {self._mark(path, item): item for path, item in redaction.hidden(value)}

    def _mark(self, path: Path, value: Any) -> str:
        text = json.dumps([self._name, path, value], sort_keys=True)
        mark = salted_hmac("django_sked.redact", text, algorithm="sha256").hexdigest()[:12]
        return f"{MARK[:-1]} {mark}]"

    def shown(self, value: Any) -> Any:
        """The payload there is, with marks."""
        return self._redaction.shown(value, self._mark)

    def told(self, value: Any) -> Any:
        """A payload that was typed, for a diff: its marks, but nothing that was typed where one may stand."""
        return self._redaction.shown(value, lambda path, item: item if self._is_known(item) else REPLACED)

    def replaces(self, value: Any) -> bool:
        """Was anything typed where a hidden value may stand? Whether it is the same shall not be told."""
        return any(not self._is_known(item) for _path, item in self._redaction.hidden(value))

    def restored(self, value: Any) -> Any:
        """A payload that was typed, with the values that its marks stand for; raises ValidationError."""
        if not self._redaction:
            return value
        found = self._redaction.shown(value, lambda path, item: self._hidden[item] if self._is_known(item) else item)
        self._refuse_marks(value, ())
        return found

    def _is_known(self, item: Any) -> bool:
        return isinstance(item, str) and item in self._hidden

    def _refuse_marks(self, value: Any, path: Path) -> None:
        """One that stands for nothing, or where the value would be shown."""
        if isinstance(value, dict):
            for key, item in value.items():
                self._refuse_marks(item, (*path, str(key)))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._refuse_marks(item, (*path, str(index)))
        elif (
            isinstance(value, str)
            and MARKS.fullmatch(value)
            and not (self._is_known(value) and self._redaction.hides(path))
        ):
            text = _(
                "%(path)s: %(mark)s stands for no hidden value here. Leave such marks under the keys where the form "
                "shows them, or write a value in their place."
            )
            raise ValidationError(text % {"path": ".".join(path), "mark": value}, code="redacted")
