"""From a draft without faults to what cloud-init tells VMs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vnet.base.cloud_init import UNSAID, CloudInit
from vnet.topology import language_cloud_init as words
from vnet.topology.check_cloud_init import document_of, key_text, keys_in
from vnet.topology.shape import Entry, Read

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
        ssh_keys=() if keys is None else _keys(keys.value, texts),
        password_hash=entry.value(words.CLOUD_PASSWORD_HASH),
        packages=tuple(each.value for each in entry.value(words.CLOUD_PACKAGES)),
        commands=tuple(each.value for each in entry.value(words.CLOUD_RUNCMD)),
        user_data="" if own is None else document_of(own, texts) or "",
    )


def _keys(given: Iterable[Read[str]], texts: Texts) -> tuple[str, ...]:
    """All of them, each once."""
    found = (key_text(each, texts) or "" for each in given)
    return tuple(dict.fromkeys(key for text in found for key in keys_in(text)))
