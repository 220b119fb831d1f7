from __future__ import annotations

import pytest

from vnet.base.errors import HostError
from vnet.hv.monitor import (
    Command,
    MonitorEvent,
    RunState,
    is_saved,
    load_state,
    parse_event,
    parse_status,
    plug_nic,
    save_state,
)


def test_a_nic_is_plugged_with_its_tap_sent_first():
    sent, netdev, device = plug_nic(1, 0x525400123456, 7, None)
    assert sent == Command("getfd", {"fdname": "tap1"}, 7)
    assert netdev == Command("netdev_add", {"type": "tap", "id": "net1", "fd": "tap1"})
    assert device.name == "device_add"
    assert device.arguments["netdev"] == "net1" and device.arguments["bus"] == "slot1"
    assert device.arguments["mac"] == "52:54:00:12:34:56" and device.arguments["romfile"] == ""


def test_vhost_is_used_when_there_is_a_device_for_it():
    _, sent, netdev, _ = plug_nic(0, 1, 7, 9)
    assert sent == Command("getfd", {"fdname": "vhost0"}, 9)
    assert netdev.arguments["vhost"] is True and netdev.arguments["vhostfd"] == "vhost0"


def test_saving_and_loading_leave_the_memory_where_it_is():
    for commands, last in ((save_state(5), "migrate"), (load_state(5), "migrate-incoming")):
        assert commands[0].name == "migrate-set-capabilities"
        assert commands[0].arguments["capabilities"] == [{"capability": "x-ignore-shared", "state": True}]
        assert (commands[-2].name, commands[-2].fd) == ("getfd", 5)
        assert commands[-1] == Command(last, {"uri": "fd:state"})


def test_qemu_does_not_announce_a_clone_with_frames_of_its_own():
    assert Command("migrate-set-parameters", {"announce-rounds": 0}) in load_state(5)[:-1]


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}},
            MonitorEvent.POWERED_OFF,
        ),
        ({"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-qmp-quit"}}, None),
        ({"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-signal"}}, None),
        ({"event": "SHUTDOWN"}, None),
        ({"event": "GUEST_PANICKED", "data": {"action": "pause"}}, MonitorEvent.PANICKED),
        ({"event": "STOP"}, None),
        ({}, None),
    ],
)
def test_only_events_that_change_something_are_events(message, event):
    assert parse_event(message) is event


def test_run_states():
    assert parse_status({"status": "inmigrate", "running": False}) is RunState.INCOMING
    assert parse_status({"status": "shutdown"}) is RunState.POWERED_OFF
    assert parse_status({"status": "watchdog"}) is RunState.OTHER
    assert parse_status("nonsense") is RunState.OTHER


def test_a_state_is_saved_when_qemu_says_completed():
    assert is_saved({"status": "completed"}) and not is_saved({"status": "active"}) and not is_saved({})
    with pytest.raises(HostError, match="could not save"):
        is_saved({"status": "failed", "error-desc": "No space left on device"})
