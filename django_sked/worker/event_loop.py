"""The one event loop of a worker process, on which its asynchronous receivers run."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async

from django_sked.worker import hygiene

logger = logging.getLogger("django_sked.worker")


class EventLoop:
    """Runs coroutines on a thread of its own, started when the first one comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    def run(self, function: Callable[..., Coroutine[Any, Any, Any]], **kwargs: Any) -> None:
        """Call the coroutine function, wait for its end, and raise what it raised. Keeps the context variables."""
        error = asyncio.run_coroutine_threadsafe(_isolated(function, kwargs), self._started()).result()
        if error is not None:
            raise error

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
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="sked-event-loop", daemon=True
                )
                self._thread.start()
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


async def _isolated(function: Callable[..., Coroutine[Any, Any, Any]], kwargs: dict[str, Any]) -> BaseException | None:
    # Synchronous code below one receiver shares a thread; it never waits for that of another receiver.
    context = ThreadSensitiveContext()
    async with context:
        try:
            await function(**kwargs)
        except (SystemExit, KeyboardInterrupt) as error:
            return error  # raised out of a task, either would end the loop
        finally:
            if context in SyncToAsync.context_to_thread_executor:
                await sync_to_async(hygiene.clean)(closing=True)
    return None
