"""A port of a worker's process."""

from __future__ import annotations

import pytest

from django_sked.contrib.serving import Page, serve
from django_sked.exceptions import Misconfigured
from tests.contrib.conftest import Get


def broken() -> Page:
    raise RuntimeError("secret")


def test_a_path_is_answered_by_its_page(get: Get) -> None:
    server = serve({"/a": lambda: Page(201, b"x"), "/broken": broken}, 0)

    assert get(server.port, "/a?q=1") == (201, "x")
    assert get(server.port, "/b") == (404, "not found\n")
    assert get(server.port, "/broken") == (500, "RuntimeError\n")
    server.close()


def test_the_next_free_port_of_a_range_is_taken(get: Get) -> None:
    first = serve({"/": lambda: Page(200, b"first")}, 0)
    second = serve({"/": lambda: Page(200, b"second")}, first.port, ports=100)

    assert second.port > first.port
    assert (get(first.port, "/")[1], get(second.port, "/")[1]) == ("first", "second")
    with pytest.raises(Misconfigured, match=f"At 127.0.0.1 the port {first.port} is in use already"):
        serve({}, first.port)
    first.close()
    second.close()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"Nothing can be served at 192\.0\.2\.1:0"):
        serve({}, 0, address="192.0.2.1")
