"""What the page of one message shows."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.template.loader import render_to_string
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked import typed
from django_sked.admin import times
from django_sked.admin.columns import Columns
from django_sked.admin.places import address
from django_sked.admin.relations import Relations
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.sealing import Sealed
from django_sked.states import Status

SUMMARY = ("event", "queue", "state", "key", "priority", "version")
TIMES = ("due", "wall_time", "next", "held", "expires", "created", "finished", "timeout")
PROGRESS = ("attempts", "crashes", "unroutable", "progress")
HOLDER = ("claimed_by", "claimed", "token", "cancel_requested", "suspect")
RELATIONS = ("subject_type", "subject_id", "origin", "recurrence", "workflow", "parents_list")
CONTENT = ("payload_text", "metadata_text", "result_text", "receivers", "error_history")


def fieldsets(
    message: ScheduledMessage | None, *, with_payload: bool, with_recurrence: bool
) -> list[tuple[Any, dict[str, Any]]]:
    """The parts of the page; what receivers said is as confidential as what they were told.

    Without `with_recurrence` there is no name of a recurrence, but its id.
    """
    # A dead message has the text of its last error as its reason.
    with_reason = with_payload or message is None or message.status != Status.DEAD
    relations = RELATIONS if with_recurrence else [f"{name}_id" if name == "recurrence" else name for name in RELATIONS]
    summary = (*SUMMARY[:3], "reason", *SUMMARY[3:]) if with_reason else SUMMARY
    return [
        (None, {"fields": summary}),
        (gettext_lazy("Times"), {"fields": TIMES}),
        (gettext_lazy("Attempts"), {"fields": PROGRESS}),
        (gettext_lazy("Held by a worker"), {"fields": HOLDER}),
        (gettext_lazy("Belongs to"), {"fields": relations}),
        (gettext_lazy("Payload and errors"), {"fields": CONTENT if with_payload else ("hidden",)}),
    ]


class Details(Relations, Columns):
    """Mixed into the admin of messages."""

    @admin.display(description=gettext_lazy("version"))
    def version(self, message: ScheduledMessage) -> str:
        """Of its type, with the class if this release has one."""
        kind = typed.known.get(message.event)
        if kind is None:
            return str(message.schema_version)
        return f"{message.schema_version} ({kind.cls.__module__}.{kind.cls.__qualname__})"

    @admin.display(description=gettext_lazy("next attempt"))
    def next(self, message: ScheduledMessage) -> str:
        return times.shown(message.next_at, message.backend.now()) if message.is_live else "-"

    @admin.display(description=gettext_lazy("wall time"))
    def wall_time(self, message: ScheduledMessage) -> str:
        """What was asked for, by the clocks of a zone; as it is stored where it cannot be read."""
        if message.local_time is None:
            return "-"
        try:
            return f"{message.at_local:%Y-%m-%d %H:%M:%S}, {message.timezone}"
        except InvalidMessage:
            return message.local_time

    @admin.display(description=gettext_lazy("held since"))
    def held(self, message: ScheduledMessage) -> str:
        return times.shown(message.held_at, message.backend.now())

    @admin.display(description=gettext_lazy("expires"))
    def expires(self, message: ScheduledMessage) -> str:
        return times.shown(message.expires_at, message.backend.now())

    @admin.display(description=gettext_lazy("created"))
    def created(self, message: ScheduledMessage) -> str:
        return times.shown(message.created_at, message.backend.now())

    @admin.display(description=gettext_lazy("finished"), ordering="finished_at")
    def finished(self, message: ScheduledMessage) -> str:
        return times.shown(message.finished_at, message.backend.now())

    @admin.display(description=gettext_lazy("claimed"))
    def claimed(self, message: ScheduledMessage) -> str:
        return times.shown(message.claimed_at, message.backend.now())

    @admin.display(description=gettext_lazy("recurrence"))
    def recurrence(self, message: ScheduledMessage) -> str:
        """Its name, with the way to its page, and the tick; the id where it is gone."""
        if message.recurrence_id is None:
            return "-"
        found = Recurrence.objects.of(message.backend).filter(pk=message.recurrence_id).first()
        if found is None:
            return str(message.recurrence_id)
        site = self.admin_site
        name: str = found.name
        if site.is_registered(Recurrence):
            url = address(site, "recurrence_change", found.pk, backend=message.backend)
            name = format_html('<a href="{}">{}</a>', url, name)
        if message.tick_at is None:
            return name
        return format_html(_("{}, tick {}"), name, times.absolute(message.tick_at))

    @admin.display(description=gettext_lazy("payload"))
    def payload_text(self, message: ScheduledMessage) -> str:
        if isinstance(message.payload, Sealed):
            return _("It is encrypted, and none of the keys that are known here opens it.")
        return as_text(message.payload)

    @admin.display(description=gettext_lazy("metadata"))
    def metadata_text(self, message: ScheduledMessage) -> str:
        return as_text(message.metadata)

    @admin.display(description=gettext_lazy("result"))
    def result_text(self, message: ScheduledMessage) -> str:
        return as_text(message.result)

    @admin.display(description=gettext_lazy("delivered to"))
    def receivers(self, message: ScheduledMessage) -> str:
        return as_text(message.delivered_to)

    @admin.display(description=gettext_lazy("errors"))
    def error_history(self, message: ScheduledMessage) -> str:
        if not message.errors:
            return "-"
        errors = message.errors if isinstance(message.errors, list) else [message.errors]
        return render_to_string("admin/django_sked/errors.html", {"errors": [_error(error) for error in errors]})

    @admin.display(description=gettext_lazy("hidden"))
    def hidden(self, message: ScheduledMessage) -> str:
        return _("You have no permission to see payload, metadata and errors.")


def as_text(value: object) -> str:
    """JSON as people read it, as HTML; a dash for nothing."""
    if value in (None, {}):
        return "-"
    return format_html('<pre class="sked-text">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False))


def _error(error: Any) -> dict[str, Any]:
    """An entry of the history as the template takes it, also one that some other version has written."""
    if not isinstance(error, dict):
        return {"text": error}
    try:
        at = parse_datetime(str(error.get("at", "")))
    except ValueError:
        at = None
    return {**error, "when": times.absolute(at) if at is not None and at.tzinfo else error.get("at")}
