"""Cut links: connections stand still and go on, new ones wait, others are not touched, and no byte is lost.

After a cut, the kernel's transfers may go on up to half a second later, when TCP tries again; the proxy's at once.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from links import DOWN, KINDS, SHARE, UP, agree, peer, running, took_s

from covsim.emulation.links import Links, NodeLink, OpenLinks, choose
from covsim.emulation.links_measure import begin, finish, transfers

RESUMES_S = {"kernel": 0.55, "user space": 0.05}


@pytest.fixture(scope="module", params=KINDS)
def links(request: pytest.FixtureRequest) -> Iterator[Links]:
    with running(request.param, peer("peer-0"), peer("peer-1")) as links:
        yield links


@pytest.mark.parametrize(("way", "rate"), [("up", UP), ("down", DOWN)])
def test_a_transfer_waits_out_a_cut_and_goes_on_where_it_was(links: Links, way: str, rate: float):
    resumes_s = RESUMES_S[links.kind]

    def measure() -> list[tuple[float, float]]:
        client = begin(links, "peer-0", way, round(rate * 0.5 / 8))
        time.sleep(0.25)
        cut_s = time.monotonic()
        links.cut("peer-0")
        time.sleep(0.6)
        links.restore("peer-0")
        away_s = time.monotonic() - cut_s
        [done] = finish(client)
        return [(done.took_s, 0.5 / SHARE[links.kind] + away_s + resumes_s / 2)]

    agree(measure, 0, resumes_s / 2 + 0.06)


def test_what_begins_during_a_cut_waits_and_others_do_not(links: Links):
    links.cut("peer-0")
    links.cut("peer-0")  # twice is once
    waiting = begin(links, "peer-0", "down", 1000)
    assert transfers(links, "peer-1", "down", 1000)[0].took_s < 0.1
    time.sleep(0.3)
    assert waiting.poll() is None
    links.set_rates("peer-0", UP, DOWN)  # a cut link stays cut
    time.sleep(0.3)
    assert waiting.poll() is None
    restored_s = time.monotonic()
    links.restore("peer-0")
    [done] = finish(waiting)
    assert done.began_s + done.took_s - restored_s < RESUMES_S[links.kind] + 0.1


def test_a_link_is_whole_after_a_cut(links: Links):
    links.cut("peer-0")
    links.restore("peer-0")
    links.restore("peer-0")
    num_bytes = round(UP * 0.25 / 8)
    agree(lambda: [(one, 0.5 / SHARE[links.kind]) for one in took_s(links, "peer-0", "up", num_bytes, at_once=2)], 0.08)


def test_a_killed_node_stops_sending(links: Links):
    # Sockets hold megabytes; if those still arrived, a crash in the middle of an upload would be none.
    def measure() -> list[tuple[float, float]]:
        client = begin(links, "peer-0", "up", round(UP * 2 / 8))
        time.sleep(0.4)
        client.kill()
        client.communicate()
        time.sleep(0.3)
        return [(took_s(links, "peer-0", "up", round(UP * 0.2 / 8))[0], 0.2 / SHARE[links.kind])]

    agree(measure)


def test_the_control_host_is_not_shaped_and_survives_a_cut(links: Links):
    script = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(9).decode())"
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = str(server.getsockname()[1])
        links.cut("peer-0")
        command = links.command("peer-0", ["python3", "-c", script, links.control_host("peer-0"), port])
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        server.settimeout(3)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello")
        assert client.communicate()[0] == "hello\n"
        links.restore("peer-0")


def test_open_links_refuse_faults():
    links = OpenLinks()
    links.start([peer()], 9000)
    assert links.store_url("peer-0") == "http://127.0.0.1:9000"
    assert links.command("peer-0", ["true"]) == ["true"]
    for refused in (links.cut, links.restore):
        with pytest.raises(ValueError, match="cannot be cut"):
            refused("peer-0")
    with pytest.raises(ValueError, match="have no rates"):
        links.set_rates("peer-0", UP, DOWN)


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_need_names_of_their_own(kind: str):
    with choose(kind) as links, pytest.raises(ValueError, match="two nodes are called peer-0"):
        links.start([peer(), peer()], 9000)


@pytest.mark.parametrize("name", ["a/b", "", "x" * 65, "a b"])
def test_names_that_no_namespace_can_have_are_refused(name: str):
    from covsim.emulation.links_kernel import KernelLinks

    with KernelLinks() as links, pytest.raises(ValueError, match="cannot be called"):
        links.start([NodeLink(name, UP, DOWN, 0)], 9000)
