"""From a draft without faults to what cloud-init tells VMs."""

from __future__ import annotations

from vnet.base.cloud_init import UNSAID, CloudInit
from vnet.topology import language_cloud_init as words
from vnet.topology.check_cloud_init import keys_in, text_of
from vnet.topology.reading import Reading
from vnet.topology.shape import Entry


def cloud_init_of(vm: Entry, reading: Reading) -> CloudInit:
    """What a VM is told; the texts of files stand in `reading`."""
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
        ssh_keys=_keys(entry, reading) if keys else (),
        password_hash=entry.value(words.CLOUD_PASSWORD_HASH),
        packages=tuple(each.value for each in entry.value(words.CLOUD_PACKAGES)),
        commands=tuple(each.value for each in entry.value(words.CLOUD_RUNCMD)),
        user_data="" if own is None else _document(entry, reading),
    )


def _keys(entry: Entry, reading: Reading) -> tuple[str, ...]:
    found = entry.get(words.CLOUD_SSH_KEYS)
    listed = () if found is None else found.value
    texts = (each.value if words.is_key(each.value) else text_of(each, reading) or "" for each in listed)
    return tuple(dict.fromkeys(key for text in texts for key in keys_in(text)))


def _document(entry: Entry, reading: Reading) -> str:
    found = entry.get(words.CLOUD_USER_DATA)
    assert found is not None
    return found.value if words.is_document(found.value) else text_of(found, reading) or ""
