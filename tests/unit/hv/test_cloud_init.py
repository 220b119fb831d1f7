"""What a distribution's guest is told, and the image that it reads it from."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pycdlib
import pytest
import yaml

from vnet.base.cloud_init import CloudInit
from vnet.hv.cloud_init import seed_files
from vnet.hv.live.seed import iso_image, opened_image
from vnet.hv.spec import GuestNic, GuestSpec

NIC = GuestNic(
    name="db.eth0",
    interface="eth0",
    mac=0x525400123456,
    addresses=(ip_interface("10.0.0.5/24"), ip_interface("fd00::5/64")),
    mtu=1450,
    gateways=(ip_address("10.0.0.1"), ip_address("fd00::1")),
    resolvers=(ip_address("10.0.0.53"),),
    domain="shop.internal",
)
SPEC = GuestSpec("shop", "db", "distro", 1, 512 << 20, (NIC,))

NOTHING = CloudInit()


def read(spec: GuestSpec = SPEC, config: CloudInit = NOTHING) -> dict:
    return {name: yaml.safe_load(data) for name, data in seed_files(spec, config).items()}


def nic(**changes: object) -> dict:
    changed = replace(NIC, **changes)  # type: ignore[arg-type]
    return read(replace(SPEC, nics=(changed,)))["network-config"]["ethernets"]["eth0"]


def test_a_nic_is_found_by_its_mac_and_has_what_the_topology_says() -> None:
    assert read()["network-config"]["version"] == 2
    assert nic() == {
        "match": {"macaddress": "52:54:00:12:34:56"},
        "set-name": "eth0",
        "mtu": 1450,
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "addresses": ["10.0.0.5/24", "fd00::5/64"],
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "::/0", "via": "fd00::1"}],
        "nameservers": {"addresses": ["10.0.0.53"], "search": ["shop.internal"]},
    }


def test_what_a_guest_asks_for_it_is_not_told() -> None:
    asked = nic(asked=NIC.addresses, dhcpv6="address", resolvers=())
    assert asked["dhcp4"] and asked["dhcp6"] and asked["accept-ra"]
    assert asked["dhcp-identifier"] == "mac"  # as dnsmasq knows it
    assert not {"addresses", "routes", "nameservers"} & asked.keys()


def test_an_address_that_is_advertised_is_neither_told_nor_asked_for() -> None:
    slaac = nic(asked=NIC.addresses[1:])
    assert slaac["accept-ra"] and not slaac["dhcp6"] and not slaac["dhcp4"]
    assert slaac["addresses"] == ["10.0.0.5/24"]
    assert slaac["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]


def test_a_nic_without_ipv6_makes_no_address_of_its_own_and_one_without_any_holds_no_boot_up() -> None:
    only_v4 = nic(addresses=NIC.addresses[:1], gateways=NIC.gateways[:1])
    assert only_v4["link-local"] == [] and "optional" not in only_v4
    listens = nic(addresses=(), gateways=(), resolvers=(), domain="")
    assert listens["optional"] and listens["link-local"] == []


def test_user_keys_and_password_are_those_of_the_topology() -> None:
    key, secret = "ssh-ed25519 AAAA alice", "$6$salt$hash"
    config = CloudInit(True, "alice", (key,), secret, ("nginx",), ("echo 'a: b' #x",))
    told = read(config=config)["user-data"]
    assert told["user"] == {"name": "alice", "hashed_passwd": secret, "lock_passwd": False}
    assert (told["users"], told["ssh_authorized_keys"], told["ssh_pwauth"]) == (["default"], [key], True)
    assert (told["packages"], told["runcmd"]) == (["nginx"], ["echo 'a: b' #x"])
    assert (told["hostname"], told["fqdn"]) == ("db", "db.shop.internal")


def test_without_a_password_none_is_accepted_and_the_image_s_user_stays() -> None:
    told = read()["user-data"]
    assert not {"ssh_pwauth", "user", "packages", "runcmd"} & told.keys()
    assert seed_files(SPEC, CloudInit())["user-data"].startswith(b"#cloud-config\n")


def test_a_document_of_the_user_is_handed_over_byte_for_byte_and_counts_more() -> None:
    own = "#!/bin/sh\n# ünïcode\techo\n"
    files = seed_files(SPEC, CloudInit(user_data=own, ssh_keys=("k",)))
    assert files["user-data"] == own.encode()
    assert yaml.safe_load(files["vendor-data"])["ssh_authorized_keys"] == ["k"]


def test_the_instance_changes_when_what_it_is_told_does_and_not_else() -> None:
    def instance(spec: GuestSpec = SPEC, config: CloudInit = NOTHING) -> str:
        return read(spec, config)["meta-data"]["instance-id"]

    assert instance() == instance(replace(SPEC, cpus=4, memory_bytes=1 << 30))
    others = [
        instance(replace(SPEC, name="web")),
        instance(replace(SPEC, fabric="lab")),
        instance(replace(SPEC, nics=(replace(NIC, mac=1),))),
        instance(config=CloudInit(user="alice")),
        instance(config=CloudInit(user_data="#!/bin/sh")),
    ]
    assert len({instance(), *others}) == 6
    assert read()["meta-data"]["local-hostname"] == "db"


# ---- the image -------------------------------------------------------------------------------


def contents(data: bytes, **place: str) -> bytes:
    image = pycdlib.PyCdlib()
    image.open_fp(io.BytesIO(data))
    found = io.BytesIO()
    image.get_file_from_iso_fp(found, **place)
    image.close()
    return found.getvalue()


def test_the_image_has_the_label_that_cloud_init_looks_for_and_the_files_by_both_kinds_of_names() -> None:
    files = seed_files(SPEC, CloudInit(user_data="x" * 100_000))
    data = iso_image(files)
    assert data[32808:32840].rstrip() == b"cidata"  # ECMA-119, 8.4.7
    for name, text in files.items():
        assert contents(data, rr_path=f"/{name}") == text
        assert contents(data, joliet_path=f"/{name}") == text


def test_the_image_is_no_file_and_nobody_can_write_to_it() -> None:
    with opened_image({"meta-data": b"secret"}) as descriptor:
        assert os.fstat(descriptor).st_nlink == 0
        assert b"secret" in os.pread(descriptor, 1 << 20, 0)
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        with pytest.raises(OSError):
            os.write(descriptor, b"x")
        with pytest.raises(OSError), open(f"/proc/self/fd/{descriptor}", "wb"):
            pass


def test_the_machine_has_the_id_of_its_firmware_and_copies_have_others(tmp_path) -> None:
    ((shell, option, script),) = read()["user-data"]["bootcmd"]
    firmware, file = tmp_path / "product_uuid", tmp_path / "machine-id"
    played = script.replace("/sys/class/dmi/id/product_uuid", str(firmware)).replace(
        "/etc/machine-id", str(file)
    )
    copied = replace(SPEC, name="db-2")
    for spec in (SPEC, SPEC, copied):
        firmware.write_text(spec.uuid.upper() + "\n")
        subprocess.run([shell, option, played], check=True)
        assert file.read_text() == spec.uuid.replace("-", "") + "\n"
    assert SPEC.uuid != copied.uuid
    firmware.write_text("none\n")
    subprocess.run([shell, option, played], check=True)
    assert file.read_text() == copied.uuid.replace("-", "") + "\n"
