"""An e-mail for each message, through whatever Django sends e-mails with."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email
from django.template import Context, Engine, Template
from django.template.exceptions import TemplateSyntaxError

from django_sked.arguments import shown
from django_sked.contrib.sinks import envelope, options
from django_sked.contrib.sinks.exceptions import InvalidSink
from django_sked.contrib.sinks.options import option
from django_sked.exceptions import Bury
from django_sked.models import ScheduledMessage

#: Without a folder to read templates from: only what the settings say is one.
_ENGINE = Engine()


def _template(value: object) -> Template:
    try:
        return _ENGINE.from_string(options.text(value))
    except TemplateSyntaxError as error:
        raise InvalidSink(f"must be a template: {error}") from None


def _templates(value: object) -> tuple[Template, ...]:
    return tuple(_template(each) for each in options.texts(value))


def _mailer(value: object) -> str:
    if django.VERSION < (6, 1):
        raise InvalidSink("needs Django 6.1 or later, which has the setting MAILERS")
    return options.text(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSink:
    """Sends a plain e-mail. `to`, `subject` and `body` are Django templates over the values of the message: `payload`,
    `metadata`, `id`, `event`, `due_at`, `attempt` and so on."""

    to: tuple[Template, ...] = option(_templates)
    subject: Template = option(_template)
    body: Template = option(_template)
    from_email: str | None = option(options.optional(options.text), default=None)
    #: An alias in MAILERS.
    mailer: str | None = option(options.optional(_mailer), default=None)

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        """Send it; returns {"sent": number of e-mails}."""
        context = Context(envelope.of(message), autoescape=False)
        sender = self.from_email or settings.DEFAULT_FROM_EMAIL
        domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
        email = EmailMessage(
            # One line: a name in it cannot add a header.
            subject=" ".join(self.subject.render(context).split()),
            body=self.body.render(context),
            from_email=sender,
            to=[_address(each.render(context)) for each in self.to],
            headers={
                # The same again when it is sent again, by which programs for e-mail tell that they have it.
                "Message-ID": f"<{message.idempotency_key}@{domain}>",
                "X-Sked-Id": str(message.pk),
                "X-Sked-Event": message.event,
                "X-Sked-Due": envelope.due_at(message),
                "X-Sked-Attempt": str(message.attempt),
            },
        )
        using: dict[str, Any] = {} if self.mailer is None else {"using": self.mailer}
        return {"sent": email.send(**using)}


def _address(text: str) -> str:
    try:
        validate_email(text.strip())
    except ValidationError:
        raise Bury(f"{shown(text)} is no e-mail address") from None
    return text.strip()
