"""Controllers over TCP, TLS and unix sockets, whoever calls whom; who is refused, who is called again."""

from __future__ import annotations

import itertools
import socket
import ssl
import subprocess
import threading
import time
import warnings
from dataclasses import replace

import pytest

from tests.waiting import until
from tests.wire.certificates import Authority, anonymous
from tests.wire.peer import Office, Peer, tcp_office
from vnet.base.errors import HostError, InputError
from vnet.openflow.codec import encode
from vnet.openflow.flow import Flow, match
from vnet.openflow.message import (
    BarrierReply,
    BarrierRequest,
    FeaturesReply,
    FeaturesRequest,
    FlowCommand,
    FlowMod,
    PacketIn,
)
from vnet.switch import agent, backoff
from vnet.switch.address import parse
from vnet.switch.live import server


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def impatient(monkeypatch):
    """Calls again at once."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.05)


def is_served(peer: Peer) -> bool:
    return isinstance(peer.asks(FeaturesRequest()), FeaturesReply)


def connections(switch) -> list:
    return list(switch.server._agent.connections.values())


def n_connections(switch) -> int:
    return len(connections(switch))


# -- TLS, the switch listening --------------------------------------------------------------------


def test_ovs_ofctl_works_over_tls_when_each_side_trusts_the_other(switch, authority):
    where = switch.listens("pssl:0:127.0.0.1", authority.certifies("switch"))
    mine = authority.certifies("controller")
    options = ("-p", str(mine.key), "-c", str(mine.certificate), "-C", str(mine.peers_ca))
    done = switch.ofctl("show", options=options, where=f"ssl:127.0.0.1:{where.port}")
    assert done.code == 0, done.err
    assert "n_tables:64" in done.out


def strange(folder) -> Authority:
    return Authority(folder, "strange")


REFUSED = {
    "wrong_ca": lambda ours, folder: strange(folder).certifies("intruder", trusts=ours).as_client(),
    "no_certificate": lambda ours, folder: anonymous(ours),
    "expired": lambda ours, folder: ours.certifies("late", days=-1).as_client(),
}


@pytest.mark.parametrize("client", REFUSED)
def test_a_controller_that_proves_nothing_is_refused_and_the_others_go_on(
    switch, authority, tmp_path, client
):
    where = switch.listens("pssl:0:127.0.0.1", authority.certifies("switch"))
    good = Peer.calls(("127.0.0.1", where.port), authority.certifies("good").as_client())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Peer.calls(("127.0.0.1", where.port), REFUSED[client](authority, tmp_path))
    assert is_served(good)
    assert n_connections(switch) == 1
    good.close()


def test_plain_text_and_old_tls_get_nowhere(switch, authority):
    where = switch.listens("pssl:0:127.0.0.1", authority.certifies("switch"))
    with pytest.raises(ConnectionError):
        Peer.calls(("127.0.0.1", where.port))
    old = authority.certifies("old").as_client()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Peer.calls(("127.0.0.1", where.port), old)
    assert n_connections(switch) == 0


def test_a_handshake_that_never_comes_hinders_nobody(switch, authority):
    where = switch.listens("pssl:0:127.0.0.1", authority.certifies("switch"))
    with socket.create_connection(("127.0.0.1", where.port)):
        peer = Peer.calls(("127.0.0.1", where.port), authority.certifies("controller").as_client())
        assert is_served(peer)
        peer.close()


def test_tls_without_an_identity_is_refused_in_words(switch):
    with pytest.raises(InputError, match="TLS needs a private key"):
        switch.listens("pssl:0")
    with pytest.raises(InputError, match="TLS needs a private key"):
        switch.calls("ssl:127.0.0.1:6653")


def test_files_that_do_not_fit_are_named(switch, authority, tmp_path):
    one, other = authority.certifies("one"), authority.certifies("other")
    mixed = type(one)(other.key, one.certificate, one.peers_ca)
    with pytest.raises(HostError, match=r"certificate .*one\.pem with key .*other\.key"):
        switch.listens("pssl:0", mixed)
    absent = type(one)(one.key, one.certificate, tmp_path / "absent.pem")
    with pytest.raises(HostError, match=r"CA certificates .*absent\.pem"):
        switch.calls("ssl:127.0.0.1:6653", absent)


def test_a_port_that_is_taken_is_refused_in_words(switch):
    where = switch.listens("ptcp:0:127.0.0.1")
    with pytest.raises(HostError, match=f"cannot listen on ptcp:{where.port}:127.0.0.1"):
        switch.listens(f"ptcp:{where.port}:127.0.0.1")


# -- the switch calling ---------------------------------------------------------------------------


def test_the_switch_calls_a_controller_over_tcp(switch):
    with tcp_office() as office:
        switch.calls(f"tcp:127.0.0.1:{office.port}")
        peer = office.answers()
        assert is_served(peer)
        peer.close()


def test_the_switch_calls_a_controller_on_a_unix_socket(switch, tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "controller.sock"))
    office = Office(listener)
    switch.calls(f"unix:{tmp_path}/controller.sock")
    peer = office.answers()
    assert is_served(peer)
    peer.close()
    office.close()


def test_the_switch_calls_a_controller_over_tls(switch, authority):
    with tcp_office(authority.certifies("controller").as_server()) as office:
        switch.calls(f"ssl:127.0.0.1:{office.port}", authority.certifies("switch"))
        peer = office.answers()
        assert is_served(peer)
        assert peer.socket.getpeercert()["subject"] == ((("commonName", "switch"),),)
        peer.close()


@pytest.mark.parametrize("fault", ["wrong_ca", "expired"])
def test_the_switch_greets_no_controller_that_it_cannot_trust(switch, authority, tmp_path, fault, impatient):
    theirs = {
        "wrong_ca": lambda: strange(tmp_path).certifies("intruder", trusts=authority),
        "expired": lambda: authority.certifies("late", days=-1),
    }[fault]()
    with tcp_office(theirs.as_server()) as office:
        switch.calls(f"ssl:127.0.0.1:{office.port}", authority.certifies("switch"))
        for _ in range(2):  # and it tries again
            with pytest.raises((ssl.SSLError, ConnectionError)):
                office.answers()
    assert switch.ofctl("probe").code == 0


def test_a_controller_that_hangs_up_is_called_again_and_finds_the_flows_as_they_were(switch, impatient):
    with tcp_office() as office:
        switch.calls(f"tcp:127.0.0.1:{office.port}")
        first = office.answers()
        first.send(encode(FlowMod(FlowCommand.ADD, Flow(0, 7)), 1))
        assert first.asks(BarrierRequest()) == BarrierReply()
        first.close()
        second = office.answers()
        assert is_served(second)
        assert [flow.priority for flow in switch.datapath.installed.values()] == [7]
        second.close()


def test_a_controller_that_is_not_there_yet_is_found_when_it_comes(switch, impatient):
    with tcp_office() as office:
        port = office.port
    switch.calls(f"tcp:127.0.0.1:{port}")
    time.sleep(0.2)  # some calls fail
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    office = Office(listener)
    peer = office.answers()
    assert is_served(peer)
    peer.close()
    office.close()


def test_a_controller_that_turns_calls_away_is_called_ever_more_seldom(switch, monkeypatch):
    monkeypatch.setattr(backoff, "FIRST_S", 0.1)
    monkeypatch.setattr(backoff, "LONGEST_S", 0.4)
    with tcp_office() as office:
        switch.calls(f"tcp:127.0.0.1:{office.port}")
        moments = []
        for _ in range(4):
            office.turns_away()
            moments.append(time.monotonic())
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True):
        assert pause > 0.9 * least


def test_a_controller_that_falls_silent_is_given_up_and_called_again(switch, impatient, monkeypatch):
    monkeypatch.setattr(agent, "IDLE_S", 0.2)
    monkeypatch.setattr(agent, "DEAD_S", 0.6)
    with tcp_office() as office:
        switch.calls(f"tcp:127.0.0.1:{office.port}")
        silent = office.answers()
        assert is_served(silent)
        again = office.answers()
        assert is_served(again)
        silent.close()
        again.close()


def test_who_is_called_twice_is_called_once_and_not_after_hanging_up(switch, impatient):
    with tcp_office() as office:
        where = parse(f"tcp:127.0.0.1:{office.port}")
        switch.calls(str(where))
        switch.calls(str(where))
        peer = office.answers()
        assert is_served(peer)
        switch.run(switch.server.hang_up(where))
        assert peer.socket.recv(1) == b""
        office._listener.settimeout(0.3)
        with pytest.raises(TimeoutError):
            office.answers()


# -- what one costs the others --------------------------------------------------------------------

FRAME = bytes(1400)


def packet_in(number: int) -> PacketIn:
    return PacketIn(1, 0, number, match(in_port=1), FRAME, len(FRAME))


def test_a_controller_that_does_not_read_its_packet_ins_costs_the_others_none(switch):
    idle, keen = Peer.calls(str(switch.path)), Peer.calls(str(switch.path))
    assert is_served(idle)
    assert is_served(keen)
    total, batch = 6000, 100  # 8 MB: more than sockets and outbox of the idle one hold
    slowest = 0.0
    for first in range(0, total, batch):
        before = time.monotonic()
        for number in range(first, first + batch):
            switch.loop.call_soon_threadsafe(switch.server.packet_in, packet_in(number))
        got = [keen.next()[1] for _ in range(batch)]
        assert [packet.cookie for packet in got] == list(range(first, first + batch))
        slowest = max(slowest, time.monotonic() - before)
    assert slowest < 2.0
    of_keen, of_idle = sorted(conn.dropped_packet_ins for conn in connections(switch))
    assert of_keen == 0
    assert of_idle > total // 2
    idle.close()
    keen.close()


def test_callers_beyond_the_last_are_turned_away_and_those_inside_go_on(switch, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    inside = [Peer.calls(str(switch.path)) for _ in range(2)]
    with pytest.raises(ConnectionError):
        Peer.calls(str(switch.path))
    assert all(map(is_served, inside))
    inside.pop().close()
    _wait_for(lambda: n_connections(switch) == 1)
    late = Peer.calls(str(switch.path))
    assert is_served(late)
    late.close()
    inside[0].close()


def _wait_for(condition) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 5 s")


def test_a_controller_that_floods_delays_no_packet_in_of_another(switch):
    rude, keen = Peer.calls(str(switch.path)), Peer.calls(str(switch.path))
    assert is_served(keen)
    flood = b"".join(
        encode(FlowMod(FlowCommand.ADD, Flow(1, n, match(eth_type=0x800, ipv4_src=n))), n)
        for n in range(20_000)
    )
    sender = threading.Thread(target=rude.send, args=(flood + encode(BarrierRequest(), 9),))
    sender.start()
    for number in range(50):
        before = time.monotonic()
        switch.loop.call_soon_threadsafe(switch.server.packet_in, packet_in(number))
        assert keen.next()[1].cookie == number
        assert time.monotonic() - before < 2.0
    sender.join(30)
    while not isinstance(rude.next()[1], BarrierReply):
        pass
    assert len(switch.datapath.installed) == 20_000
    rude.close()
    keen.close()


def test_who_does_not_answer_is_told_once(switch, impatient, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    switch.calls(f"tcp:127.0.0.1:{port}")
    until(lambda: caplog.records, every_s=0.01)
    time.sleep(0.3)
    (told,) = caplog.records
    assert f"tcp:127.0.0.1:{port} does not answer" in told.getMessage()


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_passphrase(tmp_path, authority):
    identity = authority.certifies("switch")
    locked = tmp_path / "locked.key"
    command = ("openssl", "pkey", "-aes128", "-passout", "pass:secret", "-in", identity.key, "-out", locked)
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    with pytest.raises(HostError, match="is encrypted"):
        replace(identity, key=locked).as_server()
