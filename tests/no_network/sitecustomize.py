"""No network in the tests: a connection or a question that would leave this machine is an error.

conftest.py imports this file, and Python imports it by its name in every process that a test
starts, because its folder stands in PYTHONPATH. The hook hears all of Python's sockets; it cannot
be taken out again. torch's own, written in C++, are not heard: gloo and its stores.
"""

import ipaddress
import socket
import sys

TO_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
TO_NAME = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}


class NetworkError(OSError):
    """A test asked for something outside this machine."""


def is_here(host: object) -> bool:
    """Tell whether an address or a name is this machine's own, without asking anyone."""
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_the_network(event: str, arguments: tuple) -> None:
    """Raise where an audited call would leave this machine."""
    if event in TO_ADDRESS:
        sock, address = arguments
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or address is None:
            return
        host = address[0]
    elif event in TO_NAME:
        host = arguments[0]
    else:
        return
    if not is_here(host):
        raise NetworkError(f"{event} to {host!r}: the tests run without a network")


sys.addaudithook(refuse_the_network)
