"""No network in the tests: what would leave this machine is refused, here and in children."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
import urllib.request

import pytest

OUTSIDE = "192.0.2.1"  # an address that belongs to nobody (RFC 5737)


def ask(host: str) -> str:
    """Return what a connection to a host ends in."""
    try:
        socket.create_connection((host, 9), timeout=2).close()
    except OSError as error:
        return str(error)
    return "connected"


def put_answer(host: str, answers: multiprocessing.SimpleQueue) -> None:
    answers.put(ask(host))


@pytest.mark.parametrize("host", [OUTSIDE, "2001:db8::1", "example.com"])
def test_a_connection_out_is_refused_before_it_is_tried(host):
    assert ask(host).endswith("the tests run without a network")


@pytest.mark.parametrize("host", [OUTSIDE, "example.com"])
def test_a_download_is_refused(host):
    with pytest.raises(OSError, match="the tests run without a network"):
        urllib.request.urlopen(f"http://{host}/weights.pth", timeout=2)


def test_a_datagram_out_is_refused():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(OSError, match="the tests run without a network"):
            sock.sendto(b"", (OUTSIDE, 9))


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(("localhost", server.getsockname()[1]), timeout=2):
            server.accept()[0].close()


def test_a_program_that_a_test_starts_has_no_network_either():
    script = f"import socket; socket.create_connection(({OUTSIDE!r}, 9), timeout=2)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode and "the tests run without a network" in done.stderr


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_process_that_a_test_starts_has_no_network_either(method):
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    process = context.Process(target=put_answer, args=(OUTSIDE, answers))
    process.start()
    assert answers.get().endswith("the tests run without a network")
    process.join()
