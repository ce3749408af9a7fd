"""A program of this machine for each message: by its path and a list of arguments, never through a shell."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from django_sked import clock
from django_sked.arguments import shown
from django_sked.contrib.sinks import envelope, options, placeholders
from django_sked.contrib.sinks.exceptions import InvalidSink, Undelivered
from django_sked.contrib.sinks.options import option
from django_sked.exceptions import Bury
from django_sked.models import ScheduledMessage

_SHELLS = (
    "sh ash bash dash zsh ksh ksh93 mksh lksh oksh pdksh yash posh fish csh tcsh xonsh elvish pwsh powershell hush "
    "rbash rksh rzsh busybox toybox"
)
_LAUNCHERS = (
    "env xargs parallel nice ionice chrt taskset numactl nohup timeout setsid stdbuf unbuffer script expect watch time "
    "flock sudo su doas pkexec runuser setpriv capsh sg newgrp chroot unshare nsenter bwrap firejail prlimit setarch "
    "systemd-run start-stop-daemon at batch ssh screen tmux strace ltrace gdb"
)
#: Their arguments are programs.
SHELLS = frozenset(_SHELLS.split())
#: They run what their arguments say, or give it to a shell.
LAUNCHERS = frozenset(_LAUNCHERS.split())
#: Another try would end in the same way: there is no such program, it may not be run, it is none, or has too much to
#: read.
_HOPELESS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC, errno.E2BIG})


def _argv(value: object) -> tuple[str, ...]:
    argv = placeholders.arguments(value)
    if not argv:
        raise InvalidSink("must be a list with the path of a program and its arguments")
    return argv


def _executables(value: object) -> tuple[str, ...]:
    """Absolute paths of programs that exist, are no shells and run no others, and cannot be changed by everybody."""
    paths = options.texts(value)
    for path in paths:
        if not PurePosixPath(path).is_absolute() or os.path.normpath(path) != path:
            raise InvalidSink(f"must have absolute paths without '..', not {shown(path)}")
        real = os.path.realpath(path)
        names = {os.path.basename(path), os.path.basename(real)}
        if names & SHELLS:
            raise InvalidSink(f"must have no shells, and {path} is one")
        if names & LAUNCHERS:
            raise InvalidSink(f"must have no programs that run others, and {path} is one")
        if not os.path.isfile(real) or not os.access(real, os.X_OK):
            raise InvalidSink(f"must have programs of this machine, and {path} is none")
        if os.stat(real).st_mode & stat.S_IWOTH:
            raise InvalidSink(f"must have programs that not everybody may change, and {path} is one")
    return paths


def _environment(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidSink("must be a dictionary of names and values")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidSink(f"may not have a variable {shown(name)}")
        if not isinstance(text, str) or "\0" in text:
            raise InvalidSink(f"must have text for {name}")  # which may be a password
    return dict(value)


def _directory(value: object) -> str:
    if not isinstance(value, str) or not os.path.isabs(value) or not os.path.isdir(value):
        raise InvalidSink(f"must be the absolute path of a directory, not {shown(value)}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSink:
    """Runs `argv`, whose first element is one of `executables`, with the message as JSON on its standard input.

    It gets no variable but those of `environment`, no open file but its output, and a session of its own, which is
    killed as a whole after `timeout` seconds. Exit code 0 delivers; another one, or no end in time, is a failure.
    """

    argv: tuple[str, ...] = option(_argv)
    executables: tuple[str, ...] = option(_executables)
    environment: Mapping[str, str] = option(_environment, default_factory=dict, repr=False)
    directory: str = option(_directory, default="/")
    timeout: float = option(options.seconds(0.01, 86_400), default=60.0)
    #: Of what it writes, to either output.
    max_output_bytes: int = option(options.whole(0, 1 << 20), default=4096)

    def __post_init__(self) -> None:
        if self.argv[0] not in self.executables:
            raise InvalidSink(f"'argv' must begin with one of 'executables', not with {shown(self.argv[0])}.")
        for each in self.argv[1:]:
            if os.path.basename(each) in SHELLS:
                raise InvalidSink(f"'argv' must have no shells, and {shown(each)} is the name of one.")

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        """Run it to its end; returns {"exit_code": 0, "output": "..."}, with "truncated" if there was more."""
        argv = placeholders.fill(self.argv, message)
        with tempfile.TemporaryFile() as given:
            given.write(envelope.text(envelope.of(message)).encode())
            given.seek(0)
            try:
                process = self._start(argv, given)
            except OSError as error:
                kind = Bury if error.errno in _HOPELESS else Undelivered
                raise kind(f"{argv[0]} cannot be started: {error.strerror}") from error
        seconds = options.limit(self.timeout, message)
        code, output = self._run(process, clock.monotonic() + seconds)
        shown_output = output[: self.max_output_bytes].decode("utf-8", "replace").replace("\0", "�")
        if code is None and process.returncode is None:
            raise Undelivered(f"{argv[0]} could not be killed after {seconds:g} s: it runs as another user.")
        if code is None:
            raise Undelivered(f"{argv[0]} was killed after {seconds:g} s. {shown_output}")
        if code != 0:
            raise Undelivered(f"{argv[0]} ended with {code}. {shown_output}")
        result = {"exit_code": code, "output": shown_output}
        return result | {"truncated": True} if len(output) > self.max_output_bytes else result

    def _start(self, argv: list[str], given: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            env=dict(self.environment),
            cwd=self.directory,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=True,
            bufsize=0,
        )

    def _run(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[int | None, bytes]:
        """Its exit code, None if it was killed, and the beginning of what it wrote, one byte more than is kept."""
        is_over = False
        output = bytearray()
        try:
            # Not waited for before it has closed its output: until then its number is its own, also if it has ended.
            is_over = self._read(process, output, deadline)
            if is_over:
                process.wait(max(0.0, deadline - clock.monotonic()))
        except subprocess.TimeoutExpired:
            is_over = False
        finally:
            if process.returncode is None:
                _kill(process)
            assert process.stdout is not None
            process.stdout.close()
        return (process.returncode if is_over else None), bytes(output)

    def _read(self, process: subprocess.Popen[bytes], output: bytearray, deadline: float) -> bool:
        """Read what it writes, and throw away what is too much; true when it, and all it has started, write no more."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := deadline - clock.monotonic()) > 0:
                # Not for long at a time: the exception that ends an attempt cannot break into it.
                if not selector.select(min(left, 0.5)):
                    continue
                part = os.read(process.stdout.fileno(), 65536)
                if not part:
                    return True
                output += part[: max(0, self.max_output_bytes + 1 - len(output))]
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and all of its session that has not left it. What runs as another user is left, and not waited for."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:
        process.poll()
        return
    process.wait()
