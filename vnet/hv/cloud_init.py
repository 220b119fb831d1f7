"""What a distribution's guest reads when it boots: the files of cloud-init's NoCloud data source.

Name, user and keys come by `user-data`, NICs by `network-config`. A guest does most of it once for each
`instance-id`, so that changes exactly when something here does.

Source: cloud-init 22.4, docs "NoCloud" and "Networking Config Version 2"; netplan 0.106.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import yaml

from vnet.base.cloud_init import CloudInit
from vnet.hv.spec import GuestNic, GuestSpec, format_mac

LABEL = "cidata"
"""Of the file system that the files lie in: by it they are found."""

_DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}
"""Not "default": what is not netplan does not know that word."""

_MACHINE_ID = """\
id=$(tr -d '\\n-' </sys/class/dmi/id/product_uuid | tr A-F a-f)
if [ ${#id} = 32 ] && [ "$id" != "$(cat /etc/machine-id)" ]; then echo "$id" >/etc/machine-id; fi
"""
"""Makes the machine's ID that of its firmware, at every boot: a copy of a disk has that of the original.

Source: machine-id(5); systemd takes it from there by itself where there is none.
"""


def seed_files(spec: GuestSpec, config: CloudInit) -> Mapping[str, bytes]:
    """All files of the data source, by name.

    A user's own document is `user-data`, byte for byte; what vnet has to say is then `vendor-data`,
    which cloud-init merges below it.
    """
    ours = _document("#cloud-config", _config(spec, config))
    network = _document("", network_config(spec.nics))
    files = {"user-data": ours, "network-config": network}
    if config.user_data:
        files = {"user-data": config.user_data, "vendor-data": ours, "network-config": network}
    meta = {"instance-id": _instance_id(spec, files), "local-hostname": spec.name}
    return {name: text.encode() for name, text in {"meta-data": _document("", meta), **files}.items()}


def _instance_id(spec: GuestSpec, files: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, text in sorted(files.items()):
        digest.update(f"{name} {len(text)}\n{text}".encode())
    return f"{spec.fabric}-{spec.name}-{digest.hexdigest()[:12]}"


def _document(head: str, value: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(value, sort_keys=False, width=1000, allow_unicode=True)
    return f"{head}\n{text}" if head else text


# ---- user-data -------------------------------------------------------------------------------


def _config(spec: GuestSpec, config: CloudInit) -> dict[str, Any]:
    domain = next((nic.domain for nic in spec.nics if nic.domain), "")
    found: dict[str, Any] = {"hostname": spec.name, "fqdn": f"{spec.name}.{domain}" if domain else spec.name}
    found |= {"manage_etc_hosts": True, "users": ["default"], "bootcmd": [["sh", "-c", _MACHINE_ID]]}
    found |= {"user": user} if (user := _user(config)) else {}
    found |= {"ssh_authorized_keys": list(config.ssh_keys)} if config.ssh_keys else {}
    found |= {"ssh_pwauth": True} if config.password_hash else {}
    if config.packages:
        found |= {"package_update": True, "packages": list(config.packages)}
    return found | ({"runcmd": list(config.commands)} if config.commands else {})


def _user(config: CloudInit) -> dict[str, Any]:
    """What is said of the default user. Which hashes `password` knows depends on cloud-init's version."""
    named = {"name": config.user} if config.user else {}
    return named | (
        {"hashed_passwd": config.password_hash, "lock_passwd": False} if config.password_hash else {}
    )


# ---- network-config --------------------------------------------------------------------------


def network_config(nics: tuple[GuestNic, ...]) -> dict[str, Any]:
    """The NICs in version 2 of the format, which netplan has too; each is found by its MAC."""
    return {"version": 2, "ethernets": {nic.interface: _nic(nic) for nic in nics}}


def _nic(nic: GuestNic) -> dict[str, Any]:
    asked: set[int] = {address.version for address in nic.asked}
    has_v6 = bool(asked & {6}) or any(address.version == 6 for address in nic.addresses)
    found: dict[str, Any] = {
        "match": {"macaddress": format_mac(nic.mac)},
        "set-name": nic.interface,
        "mtu": nic.mtu,
        "dhcp4": 4 in asked,
        "dhcp6": nic.dhcpv6 == "address",
        "accept-ra": 6 in asked or bool(nic.dhcpv6),
    }
    found |= {"dhcp-identifier": "mac"} if 4 in asked else {}
    found |= {} if has_v6 else {"link-local": []}
    found |= {} if nic.addresses or nic.asked else {"optional": True}
    return found | _static(nic, asked)


def _static(nic: GuestNic, asked: set[int]) -> dict[str, Any]:
    """What the guest is not told by DHCP or advertisements."""
    given = [str(address) for address in nic.addresses if address not in nic.asked]
    told = [gateway for gateway in nic.gateways if gateway.version not in asked]
    routes = [{"to": _DEFAULT_ROUTES[gateway.version], "via": str(gateway)} for gateway in told]
    names: dict[str, Any] = {"addresses": [str(resolver) for resolver in nic.resolvers]}
    names |= {"search": [nic.domain]} if nic.domain else {}
    return {
        **({"addresses": given} if given else {}),
        **({"routes": routes} if routes else {}),
        **({"nameservers": names} if nic.resolvers else {}),
    }
