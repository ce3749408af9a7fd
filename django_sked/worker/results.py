"""What receivers return, as it is kept with the message: JSON within a limit, or why it is not."""

from __future__ import annotations

import logging
from typing import Any

from django_sked import payloads
from django_sked.exceptions import InvalidPayload
from django_sked.worker import failures
from django_sked.worker.answers import Attempt

logger = logging.getLogger("django_sked.worker")

#: In the place of a result that cannot be kept: an object with this key, and the reason.
NOT_STORED = "sked.not_stored"


class Results:
    """Keeps results of at most `max_bytes` each; with 0 none at all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        #: Receivers of which that was said, so that it is said once.
        self._warned: set[str] = set()

    def keep(self, attempt: Attempt, receiver: str, value: object) -> None:
        """Note what a receiver has returned. It has succeeded, and nothing about its result changes that."""
        if not self._max_bytes:
            return
        known = attempt.results
        if known is None:
            earlier = attempt.message.result
            known = earlier if attempt.is_for_several and isinstance(earlier, dict) else {}
        attempt.results = {**known, receiver: self._checked(receiver, value)}

    def _checked(self, receiver: str, value: object) -> Any:
        try:
            return payloads.normalise(value, what="result", max_bytes=self._max_bytes)
        except Exception as error:  # also those of the value's own methods
            reason = str(error) if isinstance(error, InvalidPayload) else failures.text_of(error)
        if receiver not in self._warned:
            self._warned.add(receiver)
            logger.warning("result_not_stored receiver=%s reason=%r", receiver, reason)
        return {NOT_STORED: reason}
