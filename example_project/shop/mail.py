"""The shop's mail gateway. It sends nothing: it keeps e-mails as rows, so that you can look at them."""

from __future__ import annotations

from smtplib import SMTPServerDisconnected
from uuid import uuid4

from django_sked import current_message
from shop.models import Email


def put_into_outbox(recipient: str, subject: str, text: str) -> None:
    """For who is in a transaction with the settle of its message: that alone keeps it from being there twice."""
    Email.objects.create(recipient=recipient, subject=subject, text=text)


def send(recipient: str, subject: str, text: str) -> None:
    """Send an e-mail, once.

    `current_message()` tells which scheduled message we are sending for, without handing it down to here. A message
    is delivered *at least* once; its id makes a second delivery harmless, because the e-mail is there already.
    """
    message = current_message()
    if message is not None and message.attempt < 3 and recipient.endswith("@flaky.example"):
        raise SMTPServerDisconnected("Connection unexpectedly closed")
    Email.objects.get_or_create(
        message_id=message.pk if message else uuid4(),
        recipient=recipient,
        defaults={"subject": subject, "text": text},
    )
