"""The least that shows a page of the admin to somebody who logs in."""

from __future__ import annotations

import html
import re
from http.cookiejar import CookieJar
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
_ROW = re.compile(r"<tr[^>]*>(.*?)</tr>", re.S)
_CELL = re.compile(r"<t[dh][^>]*>(.*?)</t[dh]>", re.S)


class Browser:
    def __init__(self) -> None:
        self._opener = build_opener(HTTPCookieProcessor(CookieJar()))

    def get(self, address: str, data: dict[str, str] | None = None) -> str:
        body = urlencode(data).encode() if data else None
        with self._opener.open(address, data=body, timeout=30) as answer:
            return str(answer.read().decode())

    def log_in(self, address: str, name: str, password: str) -> None:
        """Fill in the form that the address leads to."""
        token = _TOKEN.search(page := self.get(address))
        assert token, page
        page = self.get(
            f"{address}login/?next={'/admin/'}",
            {"csrfmiddlewaretoken": token[1], "username": name, "password": password},
        )
        assert "Scheduled messages" in page or "scheduled messages" in page.lower(), page


def rows(page: str) -> list[list[str]]:
    """The texts of the list of objects on a page of the admin, row by row."""
    table = page.partition('id="result_list"')[2].partition("</table>")[0]
    found = []
    for row in _ROW.findall(table.partition("<tbody>")[2]):
        cells = (" ".join(html.unescape(re.sub(r"<[^>]+>", " ", cell)).split()) for cell in _CELL.findall(row))
        found.append([cell for cell in cells if cell])
    return found
