"""The life of a guest as one table: what each event leads to, and what is done about it.

`step` is all there is. The manager performs the action and reports how it went as the next event, until
there is nothing to do. A guest that cannot be started is always ended, so that nothing half-made runs.
"""

from __future__ import annotations

from enum import Enum

from vnet.hv.spec import GuestState


class Phase(Enum):
    """Where a guest is. `SHOWN` says what of it a user sees."""

    ABSENT = "absent"
    """No process, no sockets."""
    LAUNCHING_CLONE = "launching-clone"
    LAUNCHING_COLD = "launching-cold"
    LAUNCHING_SAVED = "launching-saved"
    LOADING_SAVED = "loading-saved"
    """Its own memory, saved earlier, is read."""
    LOADED = "loaded"
    """It could go on; others of its group may not be so far yet."""
    CONTINUING = "continuing"
    REJOINING = "rejoining"
    """It goes on with its own memory, which is nowhere else now: it is not ended for a silent agent."""
    LOADING = "loading"
    """The template's state is read into the clone."""
    PLUGGING = "plugging"
    """The clone gets its NICs, still paused."""
    WAKING = "waking"
    """The guest runs; its agent has not answered yet."""
    CONFIGURING = "configuring"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    """Its processors stand still; memory, NICs and connections stay."""
    RESUMING = "resuming"
    RESETTING = "resetting"
    """Its reset button was pressed, by us or by itself: it boots again, in the same QEMU."""
    SAVING = "saving"
    """Its memory and disks are being saved; it runs, and stands still at the end."""
    SAVING_PAUSED = "saving-paused"
    SUSPENDING = "suspending"
    """Its memory is saved, its QEMU ends."""
    SUSPENDED = "suspended"
    """No process; its memory is in a file, from which it goes on."""
    STOPPING = "stopping"
    """The power button is pressed, the guest has not yet gone down."""
    ENDING = "ending"
    """QEMU is told to go, or killed."""
    CRASHED = "crashed"
    """QEMU died by itself; nothing of it is left."""


class Event(Enum):
    """What happens to a guest. DONE, SILENT and FAILED are about the action begun last."""

    START_CLONE = "start-clone"
    START_COLD = "start-cold"
    START_SAVED = "start-saved"
    ADOPT = "adopt"
    ADOPT_PAUSED = "adopt-paused"
    ADOPT_BOOTING = "adopt-booting"
    FOUND_DEAD = "found-dead"
    """The QEMU of an earlier manager has ended while nobody looked."""
    FOUND_SUSPENDED = "found-suspended"
    FORGOTTEN = "forgotten"
    """Its memory is no longer kept."""
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    RESET = "reset"
    SAVE = "save"
    SAVED = "saved"
    """So far as it went: it is as it was."""
    SUSPEND = "suspend"
    DONE = "done"
    SILENT = "silent"
    """There is no agent of vnet's to wait for: the guest runs, as far as anybody can know."""
    FAILED = "failed"
    REBOOTED = "rebooted"
    """The guest has begun to boot again by itself."""
    HALTED = "halted"
    """QEMU lets it stand still: a disk cannot be written to."""
    POWERED_OFF = "powered-off"
    """The guest switched itself off; QEMU waits, paused."""
    DIED = "died"
    """There is no QEMU process any more."""


class Action(Enum):
    """What the manager does next."""

    NOTHING = "nothing"
    LAUNCH_CLONE = "launch-clone"
    LAUNCH_COLD = "launch-cold"
    LAUNCH_SAVED = "launch-saved"
    LOAD = "load"
    LOAD_SAVED = "load-saved"
    PLUG = "plug"
    AWAIT_AGENT = "await-agent"
    CONFIGURE = "configure"
    ANNOUNCE = "announce"
    PAUSE = "pause"
    RESUME = "resume"
    CONTINUE = "continue"
    """With its own memory."""
    RESET = "reset"
    FORGET = "forget"
    """What the guest was told is lost."""
    POWER_DOWN = "power-down"
    QUIT = "quit"
    KILL = "kill"
    CLEAN = "clean"


_STARTING = (
    Phase.LAUNCHING_CLONE,
    Phase.LAUNCHING_COLD,
    Phase.LAUNCHING_SAVED,
    Phase.LOADING_SAVED,
    Phase.LOADED,
    Phase.CONTINUING,
    Phase.LOADING,
    Phase.PLUGGING,
    Phase.WAKING,
    Phase.CONFIGURING,
)

_CHANGING = (Phase.PAUSING, Phase.RESUMING, Phase.RESETTING)
_SAVING = (Phase.SAVING, Phase.SAVING_PAUSED)
_UP = (Phase.RUNNING, Phase.PAUSED, *_CHANGING, *_SAVING)
_DOWN = (Phase.ABSENT, Phase.CRASHED, Phase.SUSPENDED)

TABLE: dict[tuple[Phase, Event], tuple[Phase, Action]] = {
    # a warm clone
    **{(phase, Event.START_CLONE): (Phase.LAUNCHING_CLONE, Action.LAUNCH_CLONE) for phase in _DOWN},
    (Phase.LAUNCHING_CLONE, Event.DONE): (Phase.LOADING, Action.LOAD),
    (Phase.LOADING, Event.DONE): (Phase.PLUGGING, Action.PLUG),
    (Phase.PLUGGING, Event.DONE): (Phase.WAKING, Action.AWAIT_AGENT),
    # a cold boot, its NICs in place from the start
    **{(phase, Event.START_COLD): (Phase.LAUNCHING_COLD, Action.LAUNCH_COLD) for phase in _DOWN},
    (Phase.LAUNCHING_COLD, Event.DONE): (Phase.WAKING, Action.AWAIT_AGENT),
    # from its own memory, which was saved
    **{(phase, Event.START_SAVED): (Phase.LAUNCHING_SAVED, Action.LAUNCH_SAVED) for phase in _DOWN},
    (Phase.LAUNCHING_SAVED, Event.DONE): (Phase.LOADING_SAVED, Action.LOAD_SAVED),
    (Phase.LOADING_SAVED, Event.DONE): (Phase.LOADED, Action.NOTHING),
    (Phase.LOADED, Event.RESUME): (Phase.CONTINUING, Action.CONTINUE),
    (Phase.CONTINUING, Event.DONE): (Phase.REJOINING, Action.AWAIT_AGENT),
    (Phase.REJOINING, Event.DONE): (Phase.CONFIGURING, Action.CONFIGURE),
    (Phase.REJOINING, Event.SILENT): (Phase.RUNNING, Action.ANNOUNCE),
    (Phase.REJOINING, Event.FAILED): (Phase.RUNNING, Action.ANNOUNCE),
    (Phase.REJOINING, Event.STOP): (Phase.ENDING, Action.KILL),
    (Phase.REJOINING, Event.DIED): (Phase.CRASHED, Action.CLEAN),
    # all of them
    (Phase.WAKING, Event.DONE): (Phase.CONFIGURING, Action.CONFIGURE),
    (Phase.WAKING, Event.SILENT): (Phase.RUNNING, Action.ANNOUNCE),
    (Phase.CONFIGURING, Event.DONE): (Phase.RUNNING, Action.ANNOUNCE),
    (Phase.RUNNING, Event.DONE): (Phase.RUNNING, Action.NOTHING),
    **{(phase, Event.FAILED): (Phase.ENDING, Action.KILL) for phase in _STARTING},
    **{(phase, Event.STOP): (Phase.ENDING, Action.KILL) for phase in _STARTING},
    **{(phase, Event.DIED): (Phase.ABSENT, Action.CLEAN) for phase in _STARTING},
    # a QEMU that an earlier manager started and finished starting
    (Phase.ABSENT, Event.ADOPT): (Phase.RUNNING, Action.ANNOUNCE),
    (Phase.ABSENT, Event.FOUND_DEAD): (Phase.CRASHED, Action.CLEAN),
    (Phase.ABSENT, Event.ADOPT_PAUSED): (Phase.PAUSED, Action.ANNOUNCE),
    (Phase.ABSENT, Event.ADOPT_BOOTING): (Phase.WAKING, Action.AWAIT_AGENT),
    # standing still
    (Phase.RUNNING, Event.PAUSE): (Phase.PAUSING, Action.PAUSE),
    (Phase.PAUSING, Event.DONE): (Phase.PAUSED, Action.NOTHING),
    (Phase.PAUSED, Event.RESUME): (Phase.RESUMING, Action.RESUME),
    (Phase.RESUMING, Event.DONE): (Phase.RUNNING, Action.NOTHING),
    (Phase.PAUSED, Event.DONE): (Phase.PAUSED, Action.NOTHING),
    **{(phase, Event.HALTED): (Phase.PAUSED, Action.ANNOUNCE) for phase in (Phase.RUNNING, Phase.PAUSED)},
    # being saved
    (Phase.RUNNING, Event.SAVE): (Phase.SAVING, Action.NOTHING),
    (Phase.PAUSED, Event.SAVE): (Phase.SAVING_PAUSED, Action.NOTHING),
    (Phase.SAVING, Event.SAVED): (Phase.RUNNING, Action.NOTHING),
    (Phase.SAVING_PAUSED, Event.SAVED): (Phase.PAUSED, Action.NOTHING),
    **{(phase, Event.SUSPEND): (Phase.SUSPENDING, Action.QUIT) for phase in _SAVING},
    (Phase.SUSPENDING, Event.DONE): (Phase.SUSPENDED, Action.CLEAN),
    (Phase.SUSPENDING, Event.FAILED): (Phase.SUSPENDING, Action.KILL),
    (Phase.SUSPENDING, Event.STOP): (Phase.SUSPENDING, Action.KILL),
    (Phase.SUSPENDING, Event.DIED): (Phase.SUSPENDED, Action.CLEAN),
    (Phase.SUSPENDED, Event.DONE): (Phase.SUSPENDED, Action.NOTHING),
    (Phase.SUSPENDED, Event.STOP): (Phase.SUSPENDED, Action.NOTHING),
    (Phase.SUSPENDED, Event.FORGOTTEN): (Phase.ABSENT, Action.NOTHING),
    (Phase.ABSENT, Event.FOUND_SUSPENDED): (Phase.SUSPENDED, Action.NOTHING),
    (Phase.CRASHED, Event.FOUND_SUSPENDED): (Phase.SUSPENDED, Action.NOTHING),
    # booting again
    (Phase.RUNNING, Event.RESET): (Phase.RESETTING, Action.RESET),
    (Phase.RUNNING, Event.REBOOTED): (Phase.RESETTING, Action.FORGET),
    (Phase.RESETTING, Event.DONE): (Phase.WAKING, Action.AWAIT_AGENT),
    # what QEMU refuses changes nothing
    (Phase.PAUSING, Event.FAILED): (Phase.RUNNING, Action.NOTHING),
    (Phase.RESUMING, Event.FAILED): (Phase.PAUSED, Action.NOTHING),
    (Phase.RESETTING, Event.FAILED): (Phase.RUNNING, Action.NOTHING),
    # going down, asked or not
    (Phase.RUNNING, Event.FAILED): (Phase.ENDING, Action.KILL),
    (Phase.RUNNING, Event.STOP): (Phase.STOPPING, Action.POWER_DOWN),
    (Phase.RUNNING, Event.POWERED_OFF): (Phase.ENDING, Action.QUIT),
    (Phase.PAUSED, Event.FAILED): (Phase.ENDING, Action.KILL),
    (Phase.PAUSED, Event.STOP): (Phase.STOPPING, Action.POWER_DOWN),
    (Phase.PAUSED, Event.POWERED_OFF): (Phase.ENDING, Action.QUIT),
    **{(phase, Event.DIED): (Phase.CRASHED, Action.CLEAN) for phase in _UP},
    **{(phase, Event.STOP): (Phase.ENDING, Action.KILL) for phase in (*_CHANGING, *_SAVING)},
    (Phase.STOPPING, Event.DONE): (Phase.ENDING, Action.QUIT),
    (Phase.STOPPING, Event.FAILED): (Phase.ENDING, Action.KILL),
    (Phase.STOPPING, Event.DIED): (Phase.ABSENT, Action.CLEAN),
    (Phase.ENDING, Event.DONE): (Phase.ABSENT, Action.CLEAN),
    (Phase.ENDING, Event.FAILED): (Phase.ENDING, Action.KILL),
    (Phase.ENDING, Event.DIED): (Phase.ABSENT, Action.CLEAN),
    # a stop that was broken off is taken up again, without asking the guest twice
    (Phase.STOPPING, Event.STOP): (Phase.ENDING, Action.KILL),
    (Phase.ENDING, Event.STOP): (Phase.ENDING, Action.KILL),
    # nothing to do
    (Phase.ABSENT, Event.DONE): (Phase.ABSENT, Action.NOTHING),
    (Phase.ABSENT, Event.STOP): (Phase.ABSENT, Action.CLEAN),
    (Phase.ABSENT, Event.DIED): (Phase.ABSENT, Action.NOTHING),
    (Phase.CRASHED, Event.DONE): (Phase.CRASHED, Action.NOTHING),
    (Phase.CRASHED, Event.STOP): (Phase.ABSENT, Action.CLEAN),
}

SHOWN: dict[Phase, GuestState] = {
    Phase.ABSENT: GuestState.STOPPED,
    **dict.fromkeys((*_STARTING, Phase.REJOINING), GuestState.STARTING),
    Phase.RUNNING: GuestState.RUNNING,
    Phase.PAUSING: GuestState.RUNNING,
    Phase.PAUSED: GuestState.PAUSED,
    Phase.RESUMING: GuestState.PAUSED,
    Phase.RESETTING: GuestState.STARTING,
    Phase.SAVING: GuestState.RUNNING,
    Phase.SAVING_PAUSED: GuestState.PAUSED,
    Phase.SUSPENDING: GuestState.STOPPING,
    Phase.SUSPENDED: GuestState.SUSPENDED,
    Phase.STOPPING: GuestState.STOPPING,
    Phase.ENDING: GuestState.STOPPING,
    Phase.CRASHED: GuestState.CRASHED,
}


def step(phase: Phase, event: Event) -> tuple[Phase, Action]:
    """The next phase and what to do. An event that cannot happen in a phase is a bug: it asserts."""
    assert (phase, event) in TABLE, f"{event} in {phase}"
    return TABLE[phase, event]


def attempts(*, template: bool) -> tuple[Event, ...]:
    """How a guest is tried to be started, in order: a clone where there is a template, then cold.

    Once in some fifty boots a stock kernel hangs or panics under emulation; a second try is cheap.
    """
    return (Event.START_CLONE if template else Event.START_COLD, Event.START_COLD)
