"""Which addresses a webhook may be sent to: those of the public internet, unless a network is allowed by name.

A name is looked up once, and the connection is made to the address that was checked: another answer to a second
question changes nothing.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from django_sked import clock
from django_sked.arguments import shown
from django_sked.contrib.sinks.exceptions import InvalidSink, Undelivered
from django_sked.exceptions import SkedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Not for everybody, whatever the `ipaddress` of this Python knows of them.
_RESERVED_4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            # From within Azure a service of the machine's host, although everybody else's address.
            "168.63.129.16/32",
        ),
    )
)
#: Of IPv6 only this is handed out to the public; outside are loopback, mapped IPv4, NAT64, unique local, link-local
#: and multicast.
_PUBLIC_6 = IPv6Network("2000::/3")
#: And of this not what is for protocols (with Teredo), documentation, 6to4 and AS112.
_RESERVED_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")))
#: Such an address stands for an IPv4 one in its last 32 bits.
_TRANSLATED = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))

#: Questions to the name service at a time: each has a thread until it is answered, also when nobody waits any more.
MOST_LOOK_UPS = 32
_looking_up = threading.BoundedSemaphore(MOST_LOOK_UPS)


class Blocked(SkedError):
    """A webhook may not be sent to this address."""


def networks(value: object) -> tuple[Network, ...]:
    """Check the option `allowed_networks`: a list of networks such as "10.1.0.0/16"."""
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise InvalidSink(f"must be a list of networks such as '10.1.0.0/16', not {shown(value)}")
    try:
        return tuple(ipaddress.ip_network(each) for each in value)
    except ValueError as error:
        raise InvalidSink(f"must be a list of networks such as '10.1.0.0/16': {error}") from None


def is_public(address: Address) -> bool:
    """May everybody reach it, and does it stand for no other one?"""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _RESERVED_4)
    is_reserved = any(address in network for network in _RESERVED_6)
    return address.is_global and address in _PUBLIC_6 and not is_reserved


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Is it public, or in one of these networks, and so is what it stands for?"""
    if not is_public(address) and not any(address in network for network in allowed):
        return False
    stands_for = _stands_for(address)
    return stands_for is None or is_allowed(stands_for, allowed)


def _stands_for(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _TRANSLATED) and int(address) > 1:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def resolve(host: str, port: int, *, allowed: Sequence[Network], seconds: float) -> list[str]:
    """The addresses of this host, in the order in which to try them.

    Raises Blocked when any of them may not be reached, and Undelivered when there is no answer within `seconds`.
    """
    found = _looked_up(host, port, seconds)
    for text in found:
        if not is_allowed(ipaddress.ip_address(text), allowed):
            raise Blocked(f"{host} is at the address {text}, which is not public")
    return found


def _looked_up(host: str, port: int, seconds: float) -> list[str]:
    """In a thread of its own, since nothing else limits the time of a question to the name service."""
    deadline, slots = clock.monotonic() + seconds, _looking_up
    answers: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError) as error:
            answers.put(error)
        finally:
            slots.release()

    if not slots.acquire(timeout=max(0.0, seconds)):
        raise Undelivered(f"{MOST_LOOK_UPS} questions to the name service have no answer: {host} was not asked for")
    try:
        threading.Thread(target=look_up, name="sked-look-up", daemon=True).start()
    except BaseException:
        slots.release()
        raise
    try:
        answer = answers.get(timeout=max(0.0, deadline - clock.monotonic()))
    except queue.Empty:
        raise Undelivered(f"no answer to the question where {host} is, within {seconds:.1f} s") from None
    if not isinstance(answer, list):
        raise Undelivered(f"nobody knows where {host} is") from answer
    return answer
