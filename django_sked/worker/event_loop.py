"""The one event loop of a worker process, on which its asynchronous receivers run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async

from django_sked.exceptions import AttemptTimedOut
from django_sked.worker import hygiene

logger = logging.getLogger("django_sked.worker")

#: Seconds that a receiver has to end after it was cancelled.
GRACE = 2.0


class EventLoop:
    """Runs coroutines on a thread of its own, started when the first one comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        #: Loops that were written off because some receiver blocked them.
        self.blocked = 0

    def run(
        self, function: Callable[..., Coroutine[Any, Any, Any]], kwargs: dict[str, Any], seconds: float | None = None
    ) -> Any:
        """Call the coroutine function, wait for its end, and return or raise what it does. Keeps the context variables.

        After so many seconds it is cancelled, and AttemptTimedOut is raised; the same for one that does not end then.
        """
        loop = self._started()
        future = asyncio.run_coroutine_threadsafe(_isolated(function, kwargs, seconds), loop)
        try:
            error, value = future.result(None if seconds is None else seconds + GRACE)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # the receiver's own
            future.cancel()
            self._replace_if_blocked(loop)
            raise AttemptTimedOut(f"It had {seconds} s, and did not end when it was cancelled.") from None
        if error is not None:
            raise error
        return value

    def _replace_if_blocked(self, loop: asyncio.AbstractEventLoop) -> None:
        """A receiver that blocks the loop blocks all others: those to come get another one."""
        answered = threading.Event()
        loop.call_soon_threadsafe(answered.set)
        if answered.wait(GRACE):
            return
        with self._lock:
            if self._loop is loop:
                self._loop = self._thread = None
                self.blocked += 1
        logger.error("event_loop_blocked")

    def stop(self, timeout: float = 1.0) -> None:
        """Cancel what still runs, and end."""
        with self._lock:
            self._stopping = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._run, args=(loop,), name="sked-event-loop", daemon=True)
                try:
                    thread.start()
                except BaseException:  # there may be a thread to be had for the next receiver
                    loop.close()
                    raise
                self._loop, self._thread = loop, thread
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._stopping:
            try:
                loop.run_forever()
            except BaseException as error:
                # A task of a receiver's own that raises SystemExit or KeyboardInterrupt ends the loop for everybody.
                logger.error("event_loop_restarted error=%s", type(error).__name__)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _isolated(
    function: Callable[..., Coroutine[Any, Any, Any]], kwargs: dict[str, Any], seconds: float | None
) -> tuple[BaseException | None, Any]:
    # Synchronous code below one receiver shares a thread; it never waits for that of another receiver.
    context = ThreadSensitiveContext()
    async with context:
        try:
            async with asyncio.timeout(seconds) as limit:
                value = await function(**kwargs)
            # One that has swallowed its cancellation was not done by then.
            return (AttemptTimedOut(_had(seconds)), None) if limit.expired() else (None, value)
        except (SystemExit, KeyboardInterrupt) as error:
            return error, None  # raised out of a task, either would end the loop
        except TimeoutError as error:
            if not limit.expired():
                raise
            return AttemptTimedOut(_had(seconds)).with_traceback(error.__traceback__), None
        finally:
            if context in SyncToAsync.context_to_thread_executor:
                await sync_to_async(hygiene.clean)(closing=True)


def _had(seconds: float | None) -> str:
    return f"It had {seconds} s."
