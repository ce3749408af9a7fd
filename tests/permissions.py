"""Write the table of docs/reference/permissions.md: `python -m tests.permissions`; see tests/admin/matrix.py."""

from __future__ import annotations

import os
import re

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings_sqlite")
django.setup()

from tests.admin.matrix import table  # noqa: E402
from tests.docs.pages import DOCS  # noqa: E402

PAGE = DOCS / "reference" / "permissions.md"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        re.sub(r"^\| may \|.*\n(?:\|.*\n)*", lambda _old: f"{table()}\n", text, flags=re.M), encoding="utf-8"
    )
