"""The form of a recurrence: all that defines one, and what is wrong with it beside the field that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked import definitions, retry, triggers
from django_sked.admin.forms import JsonField
from django_sked.admin.hiding import Hiding
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage, SkedError
from django_sked.models import Recurrence
from django_sked.redaction import Redaction

#: Triggers for which the form has fields of their own.
BUILT_IN = ("cron", "every")
#: Argument that an error begins with -> the field that it is about, where this has another name.
_FIELDS = {"start": "start_at", "end": "end_at", "retry": "retry_policy", "trigger": "own_trigger"}
#: Field of the form -> that of the row.
_STORED = {"cron": "trigger", "every": "trigger", "own_trigger": "trigger"}
_LENGTH = gettext_lazy("Seconds, or hours, minutes and seconds as in 02:30:00, with days before them as in 1 02:30:00.")


def _text_of_json() -> forms.Textarea:
    return forms.Textarea(attrs={"rows": 3, "cols": 60, "spellcheck": "false"})


class JsonOrNothing(JsonField):
    """Nothing is shown as nothing, and not as `null`."""

    def prepare_value(self, value: Any) -> Any:
        return "" if value is None else super().prepare_value(value)


class RecurrenceForm(forms.ModelForm):  # type: ignore[type-arg]
    """A cron expression, an interval or a trigger of the project's own, and the rest of a definition."""

    backend = forms.ChoiceField(
        required=False, choices=lambda: [(alias, alias) for alias in message_backends], label=gettext_lazy("Backend")
    )
    cron = forms.CharField(
        required=False,
        max_length=triggers.MOST_CHARACTERS,
        label=gettext_lazy("Cron expression"),
        help_text=gettext_lazy("Minute, hour, day of month, month, day of week, as in 0 9 * * mon-fri; or @daily."),
    )
    every = forms.DurationField(required=False, label=gettext_lazy("Every"), help_text=_LENGTH)
    own_trigger = JsonOrNothing(required=False, label=gettext_lazy("Trigger of your own"), widget=_text_of_json())

    class Meta:
        model = Recurrence
        fields = (
            *("name", "backend", "event", "payload", "metadata", "cron", "every", "own_trigger", "timezone"),
            *("start_at", "end_at", "max_occurrences", "jitter", "misfire", "misfire_cap", "grace", "overlap"),
            *("stateful", "queue", "priority", "max_attempts", "retry_policy", "timeout", "expires_in"),
        )
        widgets: ClassVar[dict[str, Any]] = {"metadata": _text_of_json(), "retry_policy": _text_of_json()}
        field_classes: ClassVar[dict[str, Any]] = {
            "payload": JsonField,
            "metadata": JsonField,
            "retry_policy": JsonOrNothing,
        }
        help_texts: ClassVar[dict[str, Any]] = {
            "metadata": gettext_lazy('Short texts under names, as JSON, as in {"tenant": "acme"}.'),
            "event": gettext_lazy("The name, if nothing is entered."),
            "timezone": gettext_lazy("Its name, as in Europe/Berlin."),
            "max_occurrences": gettext_lazy("It ends after so many successes."),
            "jitter": gettext_lazy("Each message is due later by up to so much."),
            "misfire_cap": gettext_lazy("At most so many are made up for, where all are; the newest ones."),
            "grace": gettext_lazy("So long after its time a tick is late, and not missed."),
            "stateful": gettext_lazy("Each occurrence waits for the one before it."),
            "max_attempts": gettext_lazy("As the backend says, if nothing is entered."),
            "timeout": gettext_lazy("Of each call of a receiver. As the backend says, if nothing is entered."),
            "expires_in": gettext_lazy("What has not begun so long after its due time is not begun any more."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        redact, key = redaction_of(self.instance), str(self.instance.pk)
        self.hiding = {name: Hiding(redact, key, getattr(self.instance, name)) for name in ("payload", "metadata")}
        for name in self.hiding.keys() & self.initial.keys():
            self.initial[name] = self.hiding[name].shown(getattr(self.instance, name))
        # Has it been changed since the page was shown? A receiver may say what the next payload is meanwhile.
        for name in self.hiding.keys() & self.fields.keys():
            self.fields[name].show_hidden_initial = name == "payload"
        self._show_trigger(self.instance.trigger or {})
        self._name_kinds()

    def _show_trigger(self, stored: dict[str, Any]) -> None:
        kind = stored.get("kind")
        if kind == "cron":
            self.initial["cron"] = stored["expression"]
        elif kind == "every":
            self.initial["every"] = triggers.Every(stored["interval"]).interval
        elif stored:
            self.initial["own_trigger"] = stored

    def _name_kinds(self) -> None:
        """What may be entered, where the fields are there to be entered into."""
        own = [kind for kind in triggers.kinds if kind not in BUILT_IN]
        if not own and "own_trigger" not in self.initial:
            self.fields.pop("own_trigger", None)
        if "own_trigger" in self.fields:
            text = _('Its kind and arguments as JSON, as in {"kind": "name", "hour": 7}. Known kinds: %(kinds)s.')
            self.fields["own_trigger"].help_text = text % {"kinds": ", ".join(own) or "-"}
        if "retry_policy" in self.fields:
            text = _(
                'As JSON, as in {"kind": "exponential", "base": 1, "cap": 3600}. Known kinds: %(kinds)s. '
                "As the backend says, if nothing is entered."
            )
            self.fields["retry_policy"].help_text = text % {"kinds": ", ".join(retry.kinds)}

    def clean_payload(self) -> Any:
        return self.hiding["payload"].restored(self.cleaned_data["payload"])

    def clean_metadata(self) -> Any:
        return self.hiding["metadata"].restored(self.cleaned_data["metadata"]) or {}

    def clean_retry_policy(self) -> Any:
        value = self.cleaned_data["retry_policy"]
        with _refused():
            return None if value is None else retry.to_json(retry.from_json(value))

    def clean_own_trigger(self) -> Any:
        value = self.cleaned_data["own_trigger"]
        with _refused():
            return None if value is None else triggers.to_json(triggers.from_json(value))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        values = {name: cleaned.get(name, getattr(self.instance, name)) for name in definitions.FIELDS}
        values["backend"] = values["backend"] or DEFAULT_ALIAS
        try:
            values["trigger"] = self._trigger(cleaned)
            wanted = Recurrence(**values)
            wanted.check_definition(wanted.store.now() if self.instance._state.adding else None)
        except SkedError as error:
            self.add_error(self._about(error), str(error))
            return cleaned
        if cleaned.get("own_trigger") is not None:
            self._try(wanted)
        self.instance.trigger = values["trigger"]
        return cleaned

    def _trigger(self, cleaned: dict[str, Any]) -> Any:
        """What was entered; or what there is, where the form has no fields for it."""
        if not self.fields.keys() & _STORED.keys():
            return self.instance.trigger
        own = cleaned.get("own_trigger")
        return triggers.to_json(
            definitions.one_trigger(
                cron=cleaned.get("cron") or None,
                every=cleaned.get("every"),
                trigger=None if own is None else triggers.from_json(own),
            )
        )

    def _try(self, wanted: Recurrence) -> None:
        """Arguments that its class takes may still be no good, which it would say in a worker first."""
        try:
            wanted.check_trigger(wanted.store.now())
        except Exception as error:
            self.add_error("own_trigger", _("It does not say when it comes next: %(error)s") % {"error": error})

    def _about(self, error: SkedError) -> str | None:
        """The field that an error is about, which begins with the name of an argument."""
        name = re.match(r"\w*", str(error))
        found = "" if name is None else _FIELDS.get(name[0], name[0])
        return found if found in self.fields else None

    def validate_unique(self) -> None:
        """Among the recurrences of its database, which need not be where Django would look."""
        if self.instance.backend not in message_backends:
            return
        rows = Recurrence.objects.using(Recurrence.objects.database_of(self.instance.store))
        if rows.filter(name=self.instance.name).exclude(pk=self.instance.pk).exists():
            self.add_error("name", self.instance.unique_error_message(Recurrence, ("name",)))

    @property
    def stored_changes(self) -> set[str]:
        """The fields of the row that were changed."""
        return {_STORED.get(name, name) for name in self.changed_data}


def redaction_of(recurrence: Recurrence) -> Redaction:
    return recurrence.store.redaction if recurrence.backend in message_backends else Redaction()


@contextmanager
def _refused() -> Iterator[None]:
    """What a class of the project's own does not take is no error of the server."""
    try:
        yield
    except (InvalidMessage, ValueError, TypeError) as error:
        raise ValidationError(str(error) or type(error).__name__) from error
