"""From a draft without faults to what cloud-init tells VMs."""

from __future__ import annotations

from collections.abc import Mapping

from vnet.base.cloud_init import UNSAID, CloudInit
from vnet.topology import language_cloud_init as words
from vnet.topology.check_cloud_init import keys_in, text_of
from vnet.topology.shape import Entry

Texts = Mapping[str, str]


def cloud_init_of(vm: Entry, texts: Texts) -> CloudInit:
    """What a VM is told, with the texts of the files that it names."""
    found = vm.get(words.VM_CLOUD_INIT)
    if found is None:
        return UNSAID
    entry = found.value
    if entry is None:
        return CloudInit(wanted=False)
    user, keys, own = (
        entry.get(words.CLOUD_USER),
        entry.get(words.CLOUD_SSH_KEYS),
        entry.get(words.CLOUD_USER_DATA),
    )
    return CloudInit(
        wanted=True,
        user="" if user is None else user.value,
        ssh_keys=_keys(entry, texts) if keys else (),
        password_hash=entry.value(words.CLOUD_PASSWORD_HASH),
        packages=tuple(each.value for each in entry.value(words.CLOUD_PACKAGES)),
        commands=tuple(each.value for each in entry.value(words.CLOUD_RUNCMD)),
        user_data="" if own is None else _document(entry, texts),
    )


def _keys(entry: Entry, texts: Texts) -> tuple[str, ...]:
    found = entry.get(words.CLOUD_SSH_KEYS)
    listed = () if found is None else found.value
    found_in = (each.value if words.is_key(each.value) else text_of(each, texts) or "" for each in listed)
    return tuple(dict.fromkeys(key for text in found_in for key in keys_in(text)))


def _document(entry: Entry, texts: Texts) -> str:
    found = entry.get(words.CLOUD_USER_DATA)
    assert found is not None
    return found.value if words.is_document(found.value) else text_of(found, texts) or ""
