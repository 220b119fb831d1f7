"""A QEMU without a machine: it copies disks of VMs that do not run, as confined as one with a VM."""

from __future__ import annotations

from vnet.hv.argv import QEMU, SANDBOX, escape


def command_line(uuid: str, run_dir: str) -> tuple[str, ...]:
    """QEMU and its arguments; all that it works on is told to its monitor."""
    socket = f"socket,id=qmp,path={escape(run_dir)}/qmp.sock,server=on,wait=off"
    return (
        *(QEMU, "-name", "vnet-worker", "-uuid", uuid, "-machine", "none", "-S"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-chardev", socket, "-mon", "chardev=qmp,mode=control"),
        *("-sandbox", SANDBOX, "-pidfile", f"{run_dir}/pid"),
    )
