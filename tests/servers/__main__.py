"""Run a command, and all the test runs in it, on one set of servers."""

from __future__ import annotations

import subprocess
import sys

from tests import servers

servers.postgresql()
servers.mariadb()
servers.redis()
servers.valkey()
servers.valkey_cluster()
sys.exit(subprocess.run(sys.argv[1:]).returncode)
