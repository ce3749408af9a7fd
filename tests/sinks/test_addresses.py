"""Which addresses a webhook may be sent to."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Any

import pytest

from django_sked.contrib.sinks import InvalidSink, Undelivered, addresses
from django_sked.contrib.sinks.addresses import Blocked, resolve
from tests.worker.conftest import eventually

BLOCKED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a83f:8110",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1:0:0:80ff:fffe",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "168.63.129.15", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001:82f::200e"]


@pytest.mark.parametrize("text", BLOCKED)
def test_an_address_that_is_not_public_is_blocked(text: str) -> None:
    assert not addresses.is_allowed(ipaddress.ip_address(text), ())


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_one_is_not(text: str) -> None:
    assert addresses.is_allowed(ipaddress.ip_address(text), ())


@pytest.mark.parametrize(
    ("text", "allowed", "is_allowed"),
    [
        ("10.1.2.3", ["10.1.0.0/16"], True),
        ("10.2.2.3", ["10.1.0.0/16"], False),
        ("::1", ["::1/128"], True),
        # What an address stands for must be allowed as well.
        ("64:ff9b::808:808", ["64:ff9b::/96"], True),
        ("64:ff9b::7f00:1", ["64:ff9b::/96"], False),
        ("::ffff:127.0.0.1", ["127.0.0.0/8"], False),
        ("::ffff:127.0.0.1", ["::ffff:0:0/96"], False),
        ("::ffff:127.0.0.1", ["::ffff:0:0/96", "127.0.0.0/8"], True),
        ("2002:7f00:1::1", ["2002::/16"], False),
    ],
)
def test_a_network_is_allowed_by_name(text: str, allowed: list[str], is_allowed: bool) -> None:
    assert addresses.is_allowed(ipaddress.ip_address(text), addresses.networks(allowed)) == is_allowed


@pytest.mark.parametrize("value", ["10.0.0.0/8", ["10.0.0.1/8"], ["all"], [None], 7])
def test_what_is_no_list_of_networks_is_refused(value: Any) -> None:
    with pytest.raises(InvalidSink, match="must be a list of networks"):
        addresses.networks(value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "::1"])
def test_every_way_to_write_this_machine_is_blocked(host: str) -> None:
    with pytest.raises(Blocked, match="not public"):
        resolve(host, 443, allowed=(), seconds=20)


def answers(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: entries)


def test_a_name_with_one_address_that_is_not_public_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "8.8.8.8", "10.0.0.1")

    with pytest.raises(Blocked, match=r"10\.0\.0\.1"):
        resolve("example.com", 443, allowed=(), seconds=20)


def test_a_name_has_its_addresses_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "8.8.8.8", "1.1.1.1", "8.8.8.8")

    assert resolve("example.com", 443, allowed=(), seconds=20) == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize("error", [socket.gaierror("no"), UnicodeError("label too long")])
def test_a_name_that_nobody_knows_is_to_be_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    with pytest.raises(Undelivered, match="nobody knows"):
        resolve("example.com", 443, allowed=(), seconds=20)


def test_a_name_service_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: end.wait(60) and [])
    try:
        with pytest.raises(Undelivered, match="no answer to the question"):
            resolve("example.com", 443, allowed=(), seconds=0.05)
    finally:
        end.set()


def test_no_more_threads_than_so_many_wait_for_the_name_service(monkeypatch: pytest.MonkeyPatch) -> None:
    end, asked = threading.Event(), []

    def wait(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        end.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    monkeypatch.setattr(addresses, "MOST_LOOK_UPS", 2)
    monkeypatch.setattr(addresses, "_looking_up", threading.BoundedSemaphore(2))
    try:
        for _ in range(2):
            with pytest.raises(Undelivered, match="no answer to the question"):
                resolve("example.com", 443, allowed=(), seconds=0.01)
        with pytest.raises(Undelivered, match="2 questions to the name service have no answer"):
            resolve("example.org", 443, allowed=(), seconds=0.01)
        assert eventually(lambda: asked == ["example.com"] * 2)
    finally:
        end.set()

    assert resolve("example.org", 443, allowed=(), seconds=20) == ["8.8.8.8"]
