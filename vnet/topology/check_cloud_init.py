"""Checks of what cloud-init is told: files that are there, keys that are keys, documents that it knows."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from vnet.topology import language_cloud_init as words
from vnet.topology.check_images import is_micro
from vnet.topology.draft import Draft
from vnet.topology.include import beside_or_home
from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import Entry, Read

_HEADS = (
    "#cloud-config",
    "#!",
    "#cloud-boothook",
    "#cloud-config-archive",
    "#include",
    "#part-handler",
    "## template: jinja",
    "Content-Type:",
    "MIME-Version:",
)
"""Of documents that cloud-init knows. Source: cloud-init 22.4, docs "User data formats"."""


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault to `reading`."""
    for vm in draft.vms.values():
        found = vm.value.get(words.VM_CLOUD_INIT)
        if found is None or found.value is None:
            continue
        if is_micro(vm.value):
            problem = "the micro guest has no cloud-init: its agent is told its name and NICs"
            reading.fault(found.at, found.path, problem, "leave it out, or name an image that has cloud-init")
        _check_keys(found.value, reading)
        _check_user_data(found.value, reading)


def _check_keys(entry: Entry, reading: Reading) -> None:
    found = entry.get(words.CLOUD_SSH_KEYS)
    for each in () if found is None else found.value:
        text = key_text(each, reading.texts)
        if text is None:
            problem = f"{quoted(each.value)} is neither a public key nor a file that can be read"
            reading.fault(each.at, each.path, problem, "`ssh-keygen -t ed25519` makes a key")
        elif not keys_in(text):
            reading.fault(each.at, each.path, f"{quoted(each.value)} has no public key")
        elif "PRIVATE KEY" in text:
            reading.fault(each.at, each.path, f"{quoted(each.value)} is a private key", "name its .pub")


def _check_user_data(entry: Entry, reading: Reading) -> None:
    found = entry.get(words.CLOUD_USER_DATA)
    if found is None:
        return
    text = document_of(found, reading.texts)
    if text is None:
        reading.fault(found.at, found.path, f"cannot read the file {quoted(found.value)}")
    elif not text.startswith(_HEADS):
        problem = f"cloud-init does not know a document that begins with {quoted(text.splitlines()[0])}"
        reading.fault(found.at, found.path, problem, 'its first line is "#cloud-config", or "#!/bin/sh"')
    elif text.startswith("#cloud-config\n"):
        _check_yaml(text, found, reading)


def _check_yaml(text: str, found: Read[str], reading: Reading) -> None:
    try:
        value = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in its line {mark.line + 1}" if mark else ""
        problem = f"it is no YAML{where}: {getattr(error, 'problem', None) or error}"
        reading.fault(found.at, found.path, problem)
        return
    if not isinstance(value, dict):
        reading.fault(found.at, found.path, "a cloud-config document is a map")


def key_text(given: Read[str], texts: Mapping[str, str]) -> str | None:
    """A public key itself, or the text of the file that is named; None if that is not known."""
    return given.value if words.is_key(given.value) else _text_of(given, texts)


def document_of(given: Read[str], texts: Mapping[str, str]) -> str | None:
    """User data itself, or the text of the file that is named; None if that is not known."""
    return given.value if words.is_document(given.value) else _text_of(given, texts)


def _text_of(named: Read[str], texts: Mapping[str, str]) -> str | None:
    return texts.get(beside_or_home(named.at.file, named.value))


def keys_in(text: str) -> tuple[str, ...]:
    """The public keys of a file, or the one that the text is."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if words.is_key(line))
