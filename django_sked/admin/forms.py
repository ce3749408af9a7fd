"""What a verb asks for before it is used."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_sked import scheduling
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidMessage
from django_sked.times import parse_shift

__all__ = ["ReasonForm", "RescheduleForm", "ShiftField", "VerbForm", "parse_shift"]


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


class VerbForm(forms.Form):
    """Asks why; the answer goes into the history."""

    reason = forms.CharField(label=_("Reason"), required=False, max_length=255, help_text=_("Shown in the history."))

    def __init__(self, *args: Any, backend: BaseBackend, **kwargs: Any) -> None:
        self.backend = backend
        super().__init__(*args, **kwargs)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the verb."""
        return {}


class ReasonForm(VerbForm):
    """For verbs that keep the reason on the message."""

    def arguments(self) -> dict[str, Any]:
        return {"reason": self.cleaned_data["reason"]}


class RescheduleForm(VerbForm):
    """Asks for the new time: the same for all, or by how much each one moves."""

    field_order = ["at", "shift", "reason"]
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
        self.fields["at"].help_text = _("In the time zone %(zone)s. A time that has passed makes them due at once.") % {
            "zone": timezone.get_current_timezone_name()
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        given = [name for name in ("at", "shift") if cleaned.get(name) is not None]
        if self.errors:
            return cleaned
        if len(given) != 1:
            raise ValidationError(_("Enter either a new time or by how much to move it."), code="invalid")
        try:
            scheduling.reschedule(self.backend.settings, self.backend.now(), **self.arguments())
        except InvalidMessage as error:
            self.add_error(given[0], str(error))
        return cleaned

    def arguments(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ("at", "shift") if self.cleaned_data.get(name) is not None}
