from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from django.utils import autoreload

from django_sked import arguments, log
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage, Misconfigured
from django_sked.signals import message_due
from django_sked.worker import Worker
from django_sked.worker.options import MOST_MESSAGES
from django_sked.worker.supervisor import EXIT_NOT_STARTED, Supervisor, leave
from django_sked.worker.tether import Tether, resident

LEVELS = {0: logging.ERROR, 1: logging.INFO, 2: logging.DEBUG, 3: logging.DEBUG}
MOST_PROCESSES = 1000


class Command(BaseCommand):
    help = "Deliver due messages until stopped: SIGTERM or Ctrl-C finishes what runs, a second one stops waiting."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--backend", default=DEFAULT_ALIAS, metavar="ALIAS", help="an alias of the SKED setting")
        parser.add_argument(
            "--queues",
            type=queue_sizes,
            metavar="NAME[=THREADS],...",
            help="queues to serve, each with its own threads, e.g. critical=5,mail=2,default; default: all queues",
        )
        parser.add_argument("--exclude-queues", type=queue_names, default=(), metavar="NAME,...")
        parser.add_argument("--concurrency", type=whole, metavar="N", help="threads of a queue given without a number")
        parser.add_argument("--batch-size", type=whole, metavar="N", help="most messages in one claim")
        parser.add_argument("--poll-interval", type=seconds, metavar="SECONDS", help="longest time between two looks")
        parser.add_argument("--lease", type=seconds, metavar="SECONDS", help="after so long without a beat: rescued")
        parser.add_argument("--burst", action="store_true", help="exit when nothing is due")
        parser.add_argument("--max-messages", type=whole, metavar="N", help="exit after so many messages")
        parser.add_argument("--processes", type=whole, default=1, metavar="N", help="so many workers, each a process")
        parser.add_argument(
            "--max-rss", type=whole, metavar="MIB", help="replace a process that has more memory, when it has finished"
        )
        parser.add_argument(
            "--max-messages-per-child", type=whole, metavar="N", help="replace a process after so many messages"
        )
        parser.add_argument("--reload", action="store_true", help="start again when code changes (development)")

    def handle(self, **options: Any) -> None:
        self._log_to_the_console(options["verbosity"])
        if options["processes"] > 1 or options["max_rss"] or options["max_messages_per_child"]:
            self._supervise(options)
        elif options["reload"]:
            autoreload.run_with_reloader(self._work, **options)
        else:
            self._work(**options)

    def _work(self, **options: Any) -> None:
        worker = self._worker(options)
        self._say_what_is_served(worker)
        self._spare_the_collector()
        if code := self._run(worker):
            # Some threads may never end, and Python's own end would wait for those that receivers have started.
            leave(code)

    def _supervise(self, options: dict[str, Any]) -> None:
        self._refuse_what_cannot_be_supervised(options)
        self._say_what_is_served(self._worker(options))
        self._spare_the_collector()
        supervisor = Supervisor(partial(self._work_as_child, options), options["processes"], ends=options["burst"])
        with stopped_by_signals(supervisor):
            code = supervisor.run()
        if code:
            sys.exit(code)

    def _work_as_child(self, options: dict[str, Any], pipe: int) -> int:
        """In a process of its own: the worker too is made here, because its id and its lease are this process's."""
        try:
            worker = self._worker(options | {"max_messages": options["max_messages_per_child"]})
            return self._run(worker, Tether(pipe, worker, max_rss=options["max_rss"]))
        except CommandError as error:
            self.stderr.write(f"CommandError: {error}")
            return EXIT_NOT_STARTED

    def _run(self, worker: Worker, tether: Tether | None = None) -> int:
        try:
            with stopped_by_signals(worker):
                if tether is not None:
                    tether.start()
                return worker.run()
        except Misconfigured as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(
                f"The worker cannot use its tables: {error}. Have you run `manage.py migrate`?"
            ) from error

    def _refuse_what_cannot_be_supervised(self, options: dict[str, Any]) -> None:
        flags = "--processes, --max-rss and --max-messages-per-child"
        if not hasattr(os, "fork"):
            raise CommandError(f"{flags} need os.fork, which this system does not have.")
        if options["reload"] or threading.current_thread() is not threading.main_thread():
            raise CommandError(f"{flags} work in the main thread only, and so not with --reload.")
        if options["processes"] > MOST_PROCESSES:
            raise CommandError(f"--processes must be from 1 to {MOST_PROCESSES}, not {options['processes']}.")
        if options["max_messages"]:
            raise CommandError(f"--max-messages ends one worker, and so does not go with {flags}.")
        if options["burst"] and (options["max_rss"] or options["max_messages_per_child"]):
            raise CommandError("A --burst ends by itself: it takes neither --max-rss nor --max-messages-per-child.")
        if options["max_rss"] and options["max_rss"] <= resident():
            raise CommandError(
                f"--max-rss must be more than the {resident()} MiB that the program has before its first message, "
                f"not {options['max_rss']}."
            )

    def _worker(self, options: dict[str, Any]) -> Worker:
        if options["queues"] and options["exclude_queues"]:
            raise CommandError("Give either --queues or --exclude-queues, not both.")
        names = ("queues", "exclude_queues", "concurrency", "batch_size", "poll_interval", "lease", "burst")
        try:
            backend = message_backends[options["backend"]]
            if not backend.reaches_other_processes:
                raise CommandError(
                    f"The messages of the backend {backend.alias!r} are in the memory of the process that schedules "
                    "them: run a django_sked.worker.Worker in that process."
                )
            return Worker(
                backend.alias, max_messages=options["max_messages"], **{name: options[name] for name in names}
            )
        except Misconfigured as error:
            raise CommandError(str(error)) from error

    def _say_what_is_served(self, worker: Worker) -> None:
        events = message_due.events()
        if events:
            self.stdout.write(f"Receiving {', '.join(events)} from the backend {worker.backend.alias!r}.")
        else:
            self.stderr.write(
                self.style.WARNING(
                    "No receiver is connected to message_due: every message will wait. "
                    "Put receivers into the receivers.py of an installed app."
                )
            )
        self.stdout.flush()

    def _spare_the_collector(self) -> None:
        """What is there by now stays: to go through it again and again costs each receiver 20 ms and more."""
        if getattr(self, "_called_from_command_line", False):
            gc.collect()
            gc.freeze()

    def _log_to_the_console(self, verbosity: int) -> None:
        """Make our log visible where the project has not said what to do with it."""
        logger = logging.getLogger("django_sked")
        if not logger.hasHandlers() and not logger.level:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logger.addHandler(handler)
            logger.setLevel(LEVELS[verbosity])
        log.connect()


@contextmanager
def stopped_by_signals(worker: Worker | Supervisor) -> Iterator[None]:
    """SIGTERM and SIGINT only set a flag: exiting in a handler could cut a COMMIT that is in flight."""
    if threading.current_thread() is not threading.main_thread():
        yield  # under the autoreloader, which has signals of its own
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(each, lambda *_: worker.request_stop()) for each in signals]
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # a supervisor lets them wait until somebody listens
    try:
        yield
    finally:
        for each, handler in zip(signals, previous, strict=True):
            signal.signal(each, signal.SIG_DFL if handler is None else handler)


def whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 100 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    if int(text) > MOST_MESSAGES:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_MESSAGES}, not {text!r}")
    return int(text)


def seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}") from None


def queue_names(text: str) -> list[str]:
    try:
        return [arguments.queue(name.strip()) for name in text.split(",")]
    except InvalidMessage as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def queue_sizes(text: str) -> dict[str, int | None]:
    sizes: dict[str, int | None] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        (queue,) = queue_names(name)
        if queue in sizes:
            raise argparse.ArgumentTypeError(f"names the queue {queue!r} twice")
        sizes[queue] = whole(size) if size else None
    return sizes
