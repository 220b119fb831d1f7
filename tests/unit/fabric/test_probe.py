"""Probes as scripts, and what is made of their output."""

import asyncio

from vnet.fabric import probe
from vnet.fabric.live import probe as live_probe
from vnet.fabric.probe import Attempt
from vnet.hv.spec import ExecResult, GuestState, GuestStatus
from vnet.openflow.fields import ICMP, TCP, UDP

TCP_TRY = Attempt("a", "10.0.0.1", "b", "10.0.0.2", TCP, 80)
UDP_TRY = Attempt("a", "10.0.0.1", "b", "10.0.0.2", UDP, 53)
PING = Attempt("b", "10.0.0.2", "a", "10.0.0.1", ICMP, 0)
TRIES = (TCP_TRY, UDP_TRY, PING)


def test_only_targets_of_tcp_and_udp_listen_each_port_once():
    scripts = probe.listeners((*TRIES, Attempt("c", "10.0.0.3", "b", "10.0.0.2", TCP, 80)))
    assert set(scripts) == {"b"}
    assert scripts["b"].count("-l -k 10.0.0.2 80") == 1
    assert scripts["b"].count("-u -d -l -k 10.0.0.2 53") == 1


def test_sources_bind_the_address_that_the_claim_names():
    scripts = probe.clients(TRIES)
    assert "-s 10.0.0.1 10.0.0.2 80" in scripts["a"]
    assert "-I 10.0.0.2 10.0.0.1" in scripts["b"]


def test_many_connections_are_tried_in_batches():
    tries = [Attempt("a", "10.0.0.1", "b", "10.0.0.2", TCP, port) for port in range(1, 61)]
    assert probe.clients(tries)["a"].splitlines().count("wait") == 3


def test_tcp_and_icmp_pass_by_exit_code_and_udp_by_what_was_heard():
    outputs = {"a": "0 0\n1 0\nnoise\n", "b": "2 1\n"}
    assert probe.passed(TRIES, outputs, {"b": ""}) == {TCP_TRY: True, UDP_TRY: False, PING: False}
    heard = {"b": probe.token(1) + "\n"}
    assert probe.passed(TRIES, {}, heard) == {TCP_TRY: False, UDP_TRY: True, PING: False}


def test_one_token_is_never_taken_for_another():
    assert probe.token(1) not in probe.token(11)


class SlowGuests:
    """Guests of which every connection fails until the chosen round."""

    def __init__(self, works_in_round):
        self.rounds, self.works = 0, works_in_round

    async def status(self, name):
        return GuestStatus(name, GuestState.RUNNING)

    async def exec(self, name, argv, timeout_s):
        if "echo 0 $?" not in argv[2]:
            return ExecResult(0, b"", b"")
        self.rounds += 1
        return ExecResult(0, b"0 0\n" if self.rounds >= self.works else b"0 1\n", b"")


def test_a_promised_connection_that_fails_is_tried_again():
    guests = SlowGuests(works_in_round=2)
    assert asyncio.run(live_probe.run([TCP_TRY], {TCP_TRY}, guests)) == {TCP_TRY: True}
    assert guests.rounds == 2


def test_a_promised_connection_that_never_passes_has_not_passed():
    guests = SlowGuests(works_in_round=99)
    assert asyncio.run(live_probe.run([TCP_TRY], {TCP_TRY}, guests)) == {TCP_TRY: False}
    assert guests.rounds == 1 + live_probe.MORE_ROUNDS


def test_a_forbidden_connection_is_tried_once():
    guests = SlowGuests(works_in_round=99)
    asyncio.run(live_probe.run([TCP_TRY], set(), guests))
    assert guests.rounds == 1
