"""python -m tests.performance WORKLOAD [--backend postgresql] [--repeat 3] [--json]"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.performance.settings"
    from tests.performance import servers

    server = servers.start(options.backend)
    try:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        for _ in range(options.repeat):
            _show(options, _workload(options)())
    finally:
        if server is not None:
            server.close()
    return 0


def _workload(options: argparse.Namespace) -> Callable[[], dict[str, Any]]:
    from tests.performance import workloads

    n, future = options.messages, options.future
    return {
        "drain": lambda: workloads.drain(n or 50_000, options.processes),
        "backlog": lambda: workloads.backlog(n or 50_000, future or 1_000_000),
        "enqueue": lambda: workloads.enqueue(n or 50_000),
        "punctual": lambda: workloads.punctual(n or 2_000, options.seconds, future or 0),
        "latency": lambda: workloads.latency(n or 200),
        "idle": lambda: workloads.idle(future or 1_000_000),
        "bloat": lambda: workloads.bloat(n or 290_000),
    }[options.workload]


def _show(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    if options.json:
        print(
            json.dumps({"workload": options.workload, "backend": options.backend, **_machine(), **figures}), flush=True
        )
    else:
        print(options.workload, *(f"{name}={value}" for name, value in figures.items()), flush=True)


def _machine() -> dict[str, Any]:
    import django

    from django_sked import __version__

    return {
        "python": platform.python_version(),
        "django": django.get_version(),
        "django_sked": __version__,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.performance", description=__doc__)
    parser.add_argument("workload", choices=["drain", "backlog", "enqueue", "punctual", "latency", "idle", "bloat"])
    parser.add_argument("--backend", default="postgresql", choices=["postgresql", "sqlite", "mariadb"])
    parser.add_argument("--messages", type=int, help="how many (each workload has its own default)")
    parser.add_argument("--future", type=int, help="messages due tomorrow and later that are in the store as well")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="the due times of `punctual` are spread over so long"
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
