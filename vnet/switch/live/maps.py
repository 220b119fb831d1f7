"""The switch's pinned maps and program: made beside and moved into place, or adopted."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from vnet.base.errors import HostError
from vnet.switch import abi
from vnet.switch.layout import layout
from vnet.switch.live import bpf

PROGRAM = "vnet_ingress"
PROGRAMS = (PROGRAM, "vnet_packet_out", "vnet_tidy", "vnet_carry")
MAPS = (
    "control", "entries", "group_entries", "meter_entries", "tables", "masks", "rule_index",
    "small_index", "rules", "actions", "groups", "buckets", "meters", "outputs", "ports", "lines",
    "port_by_ifindex", "port_of", "rule_text", "rule_folded", "rule_counters", "path_counters",
    "meter_counters", "table_misses", "port_counters", "drop_counters", "lost_events", "path_index",
    "path_rules", "macs", "conns", "conn_index", "port_state", "cache", "meter_state", "frags",
    "ct_control", "free_conns", "free_paths", "events", "scratch", "taps", "tap_code", "port_taps",
    "tap_counters", "filtering",
)  # fmt: skip
READY = "ready"
"""What a successor is called beside the switch it replaces, from when all is prepared."""


def object_path() -> Path:
    """The compiled dataplane: `VNET_BPF_OBJECT`, else what `make bpf` built."""
    built = Path(__file__).parents[3] / "build" / "bpf" / "switch.bpf.o"
    return Path(os.environ.get("VNET_BPF_OBJECT", built))


def ensure_bpffs(path: Path) -> None:
    """Make sure `path` lies in a mounted bpffs. Raises HostError."""
    mounted = any(
        line.split()[1:3:1] == ["/sys/fs/bpf", "bpf"]
        for line in Path("/proc/mounts").read_text().splitlines()
    )
    if not mounted and path.is_relative_to("/sys/fs/bpf"):
        done = subprocess.run(
            ["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise HostError(f"mount -t bpf bpf /sys/fs/bpf: {done.stderr.strip()}")
    path.mkdir(parents=True, exist_ok=True)


def beside(folder: Path, what: str) -> Path:
    """A folder next to a switch's own: `new-PID` and `gone-PID` are swept away, `ready` is completed."""
    return folder.parent / f"{folder.name}+{what}"  # bpffs refuses a dot


def create(folder: Path) -> None:
    """Load the installed programs with maps of their own, and pin all of it under a new folder."""
    loaded = bpf.Object(object_path())
    try:
        loaded.load()
        (folder / "links").mkdir(parents=True)
        for name in MAPS:
            fd = loaded.map_fd(name)
            bpf.pin(fd, folder / name)
            if name == "control":
                bpf.Map(fd).set(0, signed(abi.Control(version=1)))
            os.close(fd)
        for name in PROGRAMS:
            program = loaded.program_fd(name)
            bpf.pin(program, folder / name)
            os.close(program)
    finally:
        loaded.close()


def signed(control: abi.Control) -> bytes:
    """The cell with the layout of the maps and the digest of the program."""
    control.layout = layout()
    control.digest[:] = hashlib.sha256(object_path().read_bytes()).digest()
    return bytes(control)


def remove(folder: Path) -> None:
    """Unpin a switch, and all that a killed daemon left of it. Needs none that can be opened: links go first,
    because a port without a program is closed, and one whose program lost its maps would be too."""
    folders = (folder, beside(folder, READY), *folder.parent.glob(f"{folder.name}+*-*"))
    try:
        for directory in (*(each / "links" for each in folders), *folders):
            if directory.exists():
                shutil.rmtree(directory)
    except OSError as error:
        raise HostError(f"cannot remove the pinned switch {folder}: {error.strerror}") from error


class PinnedSwitch:
    """All maps and the program of one switch, by name. `adopted` tells whether they were there before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.map: dict[str, bpf.Map] = {}
        self.programs: dict[str, int] = {}
        """Descriptors by name."""
        self._sweep_leftovers()
        self.adopted = folder.exists()
        if not self.adopted:
            self._create()
        try:
            self.map |= ((name, bpf.Map(bpf.get(folder / name))) for name in MAPS)
            self.programs |= ((name, bpf.get(folder / name)) for name in PROGRAMS)
            if self.adopted:
                self._check_version()
        except BaseException:
            self.close()
            raise

    @property
    def program(self) -> int:
        """What runs at every port."""
        return self.programs[PROGRAM]

    @property
    def links(self) -> Path:
        """The folder of pinned links, one per port number."""
        return self.folder / "links"

    def _sweep_leftovers(self) -> None:
        """Remove the folders of a daemon that was killed while creating or destroying."""
        for leftover in self.folder.parent.glob(f"{self.folder.name}+*-*"):
            shutil.rmtree(leftover)

    def _beside(self, what: str) -> Path:
        return beside(self.folder, f"{what}-{os.getpid()}")

    def _create(self) -> None:
        fresh = self._beside("new")
        try:
            create(fresh)
            fresh.rename(self.folder)
        finally:
            if fresh.exists():
                shutil.rmtree(fresh)

    def _check_version(self) -> None:
        """Exchange the program of an adopted switch if the installed one differs; keep all state."""
        control = abi.Control.from_buffer_copy(self.map["control"].index(0) or b"")
        assert control.layout == layout(), "a switch of another layout is replaced before it is opened"
        path = object_path()
        if path.exists() and hashlib.sha256(path.read_bytes()).digest() != bytes(control.digest):
            self._upgrade(control)

    def _upgrade(self, control: abi.Control) -> None:
        loaded = bpf.Object(object_path())
        try:
            for name, existing in self.map.items():
                loaded.reuse(name, existing.fd)
            loaded.load()
            programs = {name: loaded.program_fd(name) for name in PROGRAMS}
            for path in self.links.iterdir():
                link = bpf.get(path)
                bpf.update_link(link, programs[PROGRAM])
                os.close(link)
            for name, program in programs.items():
                fresh = self.folder / f"{name}_new"
                fresh.unlink(missing_ok=True)
                bpf.pin(program, fresh)
                fresh.rename(self.folder / name)
                os.close(self.programs[name])
                self.programs[name] = program
            self.map["control"].set(0, signed(control))
        finally:
            loaded.close()

    def close(self) -> None:
        """Close all descriptors; everything stays pinned and in force."""
        for opened in self.map.values():
            opened.close()
        for program in self.programs.values():
            os.close(program)

    def unpin(self) -> None:
        """Unpin everything: links first, so that the ports are closed; then out of the way in one step, so
        that a daemon killed meanwhile leaves no half-removed switch to adopt. Needs nothing open."""
        shutil.rmtree(self.links)
        shutil.rmtree(self.folder.rename(self._beside("gone")))
