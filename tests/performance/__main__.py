"""Measure django-sked on this machine. Each workload is described where it is defined, and in
docs/explanation/performance.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

BACKENDS = ("postgresql", "sqlite", "mariadb", "redis", "valkey")
#: What is about a database.
ROWS_ONLY = ("bloat", "flat")
#: Workload -> what it is.
WORKLOADS = {
    "drain": "W1, W2: a stored backlog, from the first start to the last (--processes 2 beside one)",
    "enqueue": "W3: schedule() and schedule_many(), due now, and due tomorrow",
    "punctual": "W4, W4+: start less due time (--messages 20000 --future 1000000)",
    "latency": "W5: from schedule() to the start, while the worker idles",
    "backlog": "W6: drain with --future messages in the store, as a ratio to without",
    "idle": "W7: what a worker asks while nothing is due, with --future messages in the store",
    "bloat": "W8: drain and claims while an old snapshot is open (--messages are settled meanwhile)",
    "memory": "RSS while --messages are drained",
    "fleet": "--processes workers, idle and busy",
    "queues": "many queues and one, with 1, 2 and 4 workers",
    "flat": "looks, verbs, sweeps and pages with --future messages, and with --settled ones under an old snapshot",
    "admin": "the admin's pages with --rows messages of all kinds in the store (PostgreSQL)",
    "gate": "exit 1 when a ratio is far below what is usual (PostgreSQL)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.workload in ROWS_ONLY and options.backend in ("redis", "valkey"):
        parser.error(f"{options.workload} is about a database")
    if options.workload == "admin" and options.backend != "postgresql":
        parser.error("admin fills PostgreSQL only")
    module = "settings_admin" if options.workload in ("flat", "admin") else "settings"
    os.environ["DJANGO_SETTINGS_MODULE"] = f"tests.performance.{module}"
    from tests.performance import priority, servers

    if options.nice:
        os.environ[priority.VARIABLE] = str(options.nice)
        priority.put_forward(os.getpid())
    server = servers.start("postgresql" if options.workload == "gate" else options.backend)
    try:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        return _gate() if options.workload == "gate" else _measure(options)
    finally:
        if server is not None:
            server.close()


def _gate() -> int:
    from tests.performance import gate

    failures = gate.run()
    for line in failures:
        print(line, file=sys.stderr)
    return 1 if failures else 0


def _measure(options: argparse.Namespace) -> int:
    from tests.performance.figures import markdown, median

    measure = _workload(options)
    runs = []
    for number in range(options.repeat):
        runs.append(measure())
        if options.repeat > 1:
            print(f"{number + 1}/{options.repeat}", _line(runs[-1]), file=sys.stderr, flush=True)
    about = {"workload": options.workload, "backend": options.backend, **_machine()}
    if options.markdown:
        print(markdown(f"{options.workload}, {options.backend}", runs), f"\n{_line(about)}", sep="\n", flush=True)
    elif options.json:
        print(json.dumps(about | median(runs)), flush=True)
    else:
        print(options.workload, _line(median(runs)), flush=True)
    return 0


def _workload(options: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    from tests.performance import fleets, standing, workloads

    # The admin is installed for these only.
    if options.workload == "admin":
        from tests.performance import admin

        return lambda: admin.pages(options.rows)
    if options.workload == "flat":
        from tests.performance import flat

        return lambda: flat.flat(options.future or 1_000_000, options.settled)
    n, future, processes = options.messages, options.future, options.processes
    return {
        "drain": lambda: (
            workloads.drain(n or 50_000) if processes in (None, 1) else workloads.scaled(n or 50_000, processes)
        ),
        "backlog": lambda: workloads.backlog(n or 50_000, future or 1_000_000),
        "enqueue": lambda: workloads.enqueue(n or 50_000, due=not options.tomorrow),
        "punctual": lambda: workloads.punctual(n or 2_000, options.seconds, future or 0, options.lookahead),
        "latency": lambda: workloads.latency(n or 200),
        "idle": lambda: standing.idle(1_000_000 if future is None else future),
        "bloat": lambda: standing.bloat(n or 290_000, 50_000),
        "memory": lambda: standing.memory(n or 1_000_000),
        "fleet": lambda: fleets.fleet(processes or 20, options.seconds, 200, future or 100_000),
        "queues": lambda: fleets.queues(n or 50_000, 50),
    }[options.workload]


def _line(figures: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in figures.items())


def _machine() -> dict[str, Any]:
    import django
    from django.db import connection

    from django_sked import __version__
    from tests.performance import store, usage

    if store.vendor() == "redis":
        about = usage.about_redis()
        version = (
            f"valkey {about['valkey_version']}" if "valkey_version" in about else f"redis {about['redis_version']}"
        )
    else:
        version = ".".join(map(str, connection.get_database_version()))

    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "django_sked": __version__,
        "store": version,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.performance",
        description=__doc__,
        epilog="\n".join(f"{name:10} {text}" for name, text in WORKLOADS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--backend", default="postgresql", choices=BACKENDS)
    parser.add_argument("--messages", type=int, help="how many (each workload has its own default)")
    parser.add_argument("--future", type=int, help="messages due tomorrow and later that are in the store as well")
    parser.add_argument("--settled", type=int, default=290_000, help="flat: messages settled under the snapshot, or 0")
    parser.add_argument("--lookahead", type=float, help="punctual: seconds before its time that a message is claimed")
    parser.add_argument("--rows", type=int, default=10_000_000, help="admin: messages of all kinds in the store")
    parser.add_argument("--tomorrow", action="store_true", help="enqueue: due tomorrow instead of now")
    parser.add_argument("--processes", type=int, help="workers")
    parser.add_argument("--seconds", type=float, default=20.0, help="for how long, or over how much time, it goes on")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="show the medians of N runs")
    parser.add_argument("--nice", type=int, help="as root, on a machine that is busy with other work: -10")
    parser.add_argument("--json", action="store_true", help="one line")
    parser.add_argument("--markdown", action="store_true", help="a table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
