"""What is kept of an exception: text that every store takes, of bounded length, whatever the exception does.

What `scrub` takes out of a text is taken out before it is cut, so that no part of it is left at the cut.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from django_sked.exceptions import Retry

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

LONGEST_TEXT = 2_000
LONGEST_TRACEBACK = 8_000
MOST_FRAMES = 20


def is_from_the_keyboard(error: BaseException) -> bool:
    """Ctrl-C in a test or a shell, where receivers run in the main thread; in a pool nobody can mean the worker."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def path_of(error: BaseException) -> str:
    """Where its class is: module and qualified name."""
    cls = type(error)
    return _storable(f"{cls.__module__}.{cls.__qualname__}"[:LONGEST_TEXT])


def text_of(error: BaseException, scrub: Callable[[str], str] = str) -> str:
    """Its text; of a `Retry` that was raised from another error, that one's too."""
    try:
        text = str(error)
        if isinstance(error, Retry) and (cause := error.__cause__) is not None:
            text += f" ({type(cause).__name__}: {cause})"
        text = scrub(text)
    except BaseException as wrong:
        text = f"<{type(error).__name__} whose text raised {type(wrong).__name__}>"
    return _storable(text[:LONGEST_TEXT])


def traceback_of(error: BaseException, scrub: Callable[[str], str] = str) -> str:
    """Its innermost frames; of one that is too long the beginning, with the frames, and the end, with the error."""
    try:
        text = scrub("".join(traceback.format_exception(error, limit=-MOST_FRAMES)))
    except BaseException as wrong:
        text = f"<{type(error).__name__} whose traceback raised {type(wrong).__name__}>"
    if len(text) > LONGEST_TRACEBACK:
        half = LONGEST_TRACEBACK // 2
        text = f"{text[: half - 3]}\n...\n{text[-half + 2 :]}"
    return _storable(text)


def scrubbed(text: str, message: ScheduledMessage) -> str:
    """Without what is not to be shown of this message; a receiver may have its payload as an instance of its type."""
    stored = message if message._attempt is None else message._attempt.message
    redact = message.backend.redaction
    return redact.scrub(text, stored.payload, stored.metadata) if redact else text


def log(logger: logging.Logger, error: BaseException, message: ScheduledMessage, text: str, *args: object) -> None:
    """An error line with the traceback; where anything is not to be shown, as text without it.

    Then the exception itself is kept from the log too: there are handlers that take the variables out of its frames.
    """
    if message.backend.redaction:
        logger.error(f"{text}\n%s", *args, traceback_of(error, partial(scrubbed, message=message)), stacklevel=2)
    else:
        logger.error(text, *args, exc_info=error, stacklevel=2)


def _storable(text: str) -> str:
    """No NUL, no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "�")
