"""How to test code that schedules: `deliver_due()` delivers at any time you name, without a worker or a sleep."""

from __future__ import annotations

import logging

# Facts are printed, but not during tests.
logging.getLogger("shop").setLevel(logging.WARNING)
