"""What a verb asks for before it is used."""

from __future__ import annotations

import difflib
import json
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from django import forms
from django.contrib.admin.helpers import ActionForm
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from django_sked import payloads, revising, verbs
from django_sked.admin.hiding import Hiding
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.times import parse_shift

__all__ = ["ReasonForm", "RescheduleForm", "ShiftField", "VerbForm", "parse_shift"]


#: Fields of a form that move messages.
TIMES = ("at", "shift")
#: Deeper than can be stored, so that what is only a little too deep is refused by a sentence about that.
_MOST_LEVELS = 2 * payloads.DEEPEST


class ShiftField(forms.DurationField):
    def to_python(self, value: Any) -> timedelta | None:
        text = str(value or "").strip()
        if not text:
            return None
        try:
            shift = parse_shift(text)
        except (ValueError, OverflowError):
            shift = None
        if shift is None:
            raise ValidationError(_("Enter a length of time such as 30m, 2h, 1d 12h or -15m."), code="invalid")
        return shift


class JsonField(forms.JSONField):
    """JSON as text, shown again as it was typed. What Python cannot read, or what is beyond all depth, is no JSON."""

    def to_python(self, value: Any) -> Any:
        try:
            found = super().to_python(value)
        except (ValueError, RecursionError):
            found = None
        else:
            if not _is_deep(found):
                return found
        raise ValidationError(self.error_messages["invalid"], code="invalid", params={"value": value})

    def bound_data(self, data: Any, initial: Any) -> Any:
        return data if data is None else InvalidJSONInput(data)


class PayloadField(JsonField):
    """... or nothing for no change."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 10, "cols": 60, "spellcheck": "false"})
        super().__init__(label=_("Payload"), required=False, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        """It is text already."""
        return value


def _is_deep(value: Any) -> bool:
    """Is it nested so deep that a function that calls itself for each level may not come to an end?"""
    level = [value]
    for _number in range(_MOST_LEVELS):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = list(chain.from_iterable(inner))
    return bool(level)


class VerbForm(forms.Form):
    """Asks why; the answer goes into the history."""

    reason = forms.CharField(label=_("Reason"), required=False, max_length=255, help_text=_("Shown in the history."))

    def __init__(
        self,
        *args: Any,
        backend: BaseBackend,
        message: ScheduledMessage | None = None,
        with_payload: bool = False,
        with_time: bool = True,
        **kwargs: Any,
    ) -> None:
        """`message` is the one that it is about, where it is about one; may its payload, or its time, be changed?"""
        self.backend = backend
        self.message = message
        super().__init__(*args, **kwargs)
        redact = backend.redaction
        self.hiding = Hiding(redact) if message is None else Hiding(redact, str(message.pk), message.payload)
        if not with_time:
            for name in TIMES:
                self.fields.pop(name, None)
        if not with_payload:
            self.fields.pop("payload", None)
        elif "payload" in self.fields and message is not None:
            self.initial["payload"] = json.dumps(self.hiding.shown(message.payload), indent=2, ensure_ascii=False)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the verb."""
        return {}

    @property
    def seen(self) -> dict[str, Any]:
        """What the page has shown of the one message that it is about."""
        return {} if self.message is None else {"payload": self.message.payload, "due_at": self.message.due_at}

    @property
    def entered(self) -> dict[str, Any]:
        """What was entered, whatever has become of the messages since: the same for the same, to be compared."""
        return {name: str(value) for name, value in self.cleaned_data.items() if value not in (None, "")}


class ReasonActionForm(ActionForm):
    """Beside the choice of an action: why, for those that ask nothing else."""

    reason = forms.CharField(label=_("Reason:"), required=False, max_length=255)


class ReasonForm(VerbForm):
    """For verbs that keep the reason on the message."""

    def arguments(self) -> dict[str, Any]:
        return {"reason": self.cleaned_data["reason"]}


class EditForm(VerbForm):
    """May change the payload, too: for all alike, or that of the one message."""

    payload = PayloadField(help_text=_("As JSON. What is left empty stays as it is."))

    #: As it was entered, with marks for what is hidden.
    given: Any = None

    def clean_payload(self) -> Any:
        self.given = self.cleaned_data["payload"]
        return self.hiding.restored(self.given)

    @property
    def has_payload(self) -> bool:
        """Was one entered, be it `null` or that which there is?"""
        text = self.data.get(self.add_prefix("payload"), "") if "payload" in self.fields else ""
        return bool(text.strip()) and "payload" in self.cleaned_data

    @property
    def entered(self) -> dict[str, Any]:
        others = {name: value for name, value in super().entered.items() if name != "payload"}
        return others | ({"payload": self.given} if self.has_payload else {})

    @property
    def changes_payload(self) -> bool:
        """Was a payload entered, and another one than there is?"""
        if not self.has_payload:
            return False
        if self.message is None or self.hiding.replaces(self.given):
            return True
        return canonical(self.cleaned_data["payload"]) != canonical(self.message.payload)

    def arguments(self) -> dict[str, Any]:
        return {"payload": self.cleaned_data["payload"]} if self.changes_payload else {}

    @property
    def changes_time(self) -> bool:
        """Was a new time entered, or by how much to move it?"""
        return any(self.cleaned_data.get(name) is not None for name in TIMES)

    def moved(self, message: ScheduledMessage) -> datetime | None:
        """When it would be due; None where that is beyond what can be stored, so that it would stay as it is."""
        at: datetime | None = self.cleaned_data.get("at")
        if at is not None:
            return at
        verb = verbs.Reschedule(shift=self.cleaned_data["shift"])
        first, last = verb.shiftable
        return message.due_at + (verb.shift or timedelta(0)) if first <= message.due_at <= last else None

    @property
    def changes(self) -> bool:
        """Is there anything of which somebody should see first what it changes?"""
        return self.changes_payload or self.changes_time

    @property
    def preview(self) -> str:
        """A name of what was entered and, for one message, of what there is: what was previewed is what is written."""
        message = self.message
        before = None if message is None else [str(message.pk), message.payload, str(message.due_at)]
        given = [self.given, *(str(self.cleaned_data.get(name)) for name in TIMES), before]
        return salted_hmac("django_sked.preview", canonical(given), algorithm="sha256").hexdigest()

    @property
    def diff(self) -> list[tuple[str, str]]:
        """The payload before and after, line by line, each with -, + or a space."""
        if self.message is None:
            before: list[str] = []
        else:
            before = _lines(self.hiding.shown(self.message.payload))
        lines = difflib.ndiff(before, _lines(self.hiding.told(self.given)))
        return [(line[0], line[2:]) for line in lines if line[0] != "?"]


def canonical(value: Any) -> str:
    """The same text for the same JSON, and another one for any other: to Python, 1 and true are equal."""
    return json.dumps(value, sort_keys=True)


def _lines(value: Any) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()


class RedriveForm(EditForm):
    """Asks when, and with what; now and as it is, if nothing is entered."""

    field_order = ["at", "payload", "reason"]
    at = forms.DateTimeField(
        label=_("New time"),
        required=False,
        help_text=_("Now, if nothing is entered."),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                revising.redrive(self.backend.settings, self.backend.now(), **self.arguments())
            except InvalidMessage as error:
                self.add_error("payload" if self.changes_payload else "at", str(error))
        return cleaned

    def arguments(self) -> dict[str, Any]:
        at = self.cleaned_data.get("at")
        return super().arguments() | ({"at": at} if at is not None else {})


class RescheduleForm(EditForm):
    """Asks for the new time: the same for all, or by how much each one moves."""

    field_order = ["at", "shift", "payload", "reason"]
    at = forms.DateTimeField(
        label=_("New time"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"),
    )
    shift = ShiftField(
        label=_("Or move by"),
        required=False,
        help_text=_("From the present due time: 30m, 2h, 1d 12h, or -15m for earlier."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "at" in self.fields:
            text = _("In the time zone %(zone)s. A time that has passed makes them due at once.")
            self.fields["at"].help_text = text % {"zone": timezone.get_current_timezone_name()}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        given = [name for name in ("at", "shift") if cleaned.get(name) is not None]
        if self.errors:
            return cleaned
        if "at" not in self.fields and not self.changes_payload:
            raise ValidationError(_("Enter another payload: to move it you have no permission."), code="invalid")
        if len(given) > 1 or (not given and not self.changes_payload):
            raise ValidationError(_("Enter either a new time or by how much to move it."), code="invalid")
        try:
            revising.reschedule(self.backend.settings, self.backend.now(), **self.arguments())
        except InvalidMessage as error:
            self.add_error("payload" if self.changes_payload else given[0], str(error))
        return cleaned

    def arguments(self) -> dict[str, Any]:
        times = {name: self.cleaned_data[name] for name in ("at", "shift") if self.cleaned_data.get(name) is not None}
        return times | super().arguments()
