"""Makes the micro guest from Debian packages: `python -m vnet.hv.live.image`.

Nothing is installed and no root is needed: packages are downloaded with `apt-get download`, unpacked
with `dpkg -x`, and what `vnet.hv.image` chooses is written as an initramfs. The result is kept under
`paths.image_dir()` by package versions and the contents of `guest/`; it is built beside and renamed, so
an interrupted build leaves no half image.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, VnetError
from vnet.hv import image
from vnet.hv.live.lock import exclusive

GUEST_SOURCES = Path(__file__).resolve().parents[3] / "guest"

_CURRENT = "micro"
"""The symbolic link that names the image in use."""

_DOWNLOAD_TIMEOUT_S = 600.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Image:
    """A guest image on disk. `key` changes whenever its contents do."""

    key: str
    kernel: Path
    initrd: Path


def ensure(progress: Progress) -> Image:
    """The micro guest, built now if there is none or `guest/` has changed since.

    Package versions are not looked at: that is what `build` is for.
    """
    found = current()
    if found:
        return found
    return build(progress)


def current() -> Image | None:
    """The image in use, or None if there is none made of the present `guest/`."""
    folder = paths.image_dir() / _CURRENT
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    if manifest.get("key") != image.cache_key(manifest.get("packages", {}), _scripts()):
        return None
    return _image(folder.resolve())


def build(progress: Progress) -> Image:
    """The micro guest of the packages that apt now offers; made only if it is not there already.

    Raises:
        HostError: apt has no package lists, a download failed, the disk is full.
    """
    versions = _package_versions()
    key = image.cache_key(versions, _scripts())
    target = paths.image_dir() / f"micro-{key}"
    with exclusive(paths.image_dir()):
        _make_once(target, versions, key, progress)
        _point_at(target)
        _remove_others(target)
    progress(f"micro guest: ready ({sum(f.stat().st_size for f in target.iterdir()) >> 20} MiB, {key})")
    return _image(target)


def _make_once(target: Path, versions: dict[str, str], key: str, progress: Progress) -> None:
    for left in paths.image_dir().glob(".building-*"):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    if not target.is_dir():
        with tempfile.TemporaryDirectory(prefix=".building-", dir=paths.image_dir()) as folder:
            _build_in(Path(folder), versions, key, progress)
            (Path(folder) / "image").rename(target)


def _image(folder: Path) -> Image:
    return Image(folder.name.removeprefix("micro-"), folder / "vmlinuz", folder / "initrd")


def _scripts() -> dict[str, bytes]:
    try:
        return {name: (GUEST_SOURCES / name).read_bytes() for name in image.SCRIPTS}
    except FileNotFoundError as error:
        raise HostError(f"the sources of the micro guest are missing: {error}") from error


def _build_in(folder: Path, versions: dict[str, str], key: str, progress: Progress) -> None:
    packages, tree, result = (folder / name for name in ("packages", "tree", "image"))
    for path in (packages, tree, result):
        path.mkdir()
    progress(f"micro guest: downloading {len(versions)} Debian packages")
    _download(versions, packages)
    progress("micro guest: unpacking")
    for package in sorted(packages.glob("*.deb")):
        _run("dpkg", "-x", str(package), str(tree))
    progress("micro guest: writing the initramfs")
    entries = image.contents(_ingredients(tree))
    (result / "initrd").write_bytes(image.write_cpio(entries))
    shutil.copyfile(_one(tree, "boot/vmlinuz-*"), result / "vmlinuz")
    manifest = {"key": key, "packages": versions}
    (result / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    # QEMU reads them as another user, by descriptors that we hand over.
    for path in (result, *result.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _package_versions() -> dict[str, str]:
    """What apt would install now: package name to version, the kernel's own package included."""
    depends = _show(image.KERNEL_META_PACKAGE)[0].get("Depends", "")
    names = (image.kernel_package(depends), *image.TOOL_PACKAGES)
    stanzas = _show(*names)
    versions = {stanza["Package"]: stanza["Version"] for stanza in stanzas}
    missing = sorted(set(names) - versions.keys())
    if missing:
        raise HostError(f"apt knows no package {', '.join(missing)}: run `apt-get update`")
    return versions


def _show(*packages: str) -> list[dict[str, str]]:
    """The stanzas of `apt-cache show`, as field name to first line of its value."""
    output = _run("apt-cache", "show", "--no-all-versions", *packages)
    stanzas = []
    for text in output.strip().split("\n\n"):
        lines = (line.partition(": ") for line in text.splitlines() if line[:1] not in (" ", ""))
        stanzas.append({name: value for name, _, value in lines})
    return stanzas


def _download(versions: dict[str, str], folder: Path) -> None:
    """`apt-get download` checks what it fetched against the archive's signatures."""
    wanted = [f"{package}={version}" for package, version in versions.items()]
    options = ["-q", "-o", "Acquire::Retries=3"]
    if os.geteuid() == 0:
        options += ["-o", "APT::Sandbox::User=root"]  # else apt warns that _apt cannot write here
    _run("apt-get", *options, "download", *wanted, cwd=folder)


def _ingredients(tree: Path) -> image.Ingredients:
    busybox = _one(tree, "bin/busybox")
    return image.Ingredients(
        busybox=busybox.read_bytes(),
        applets=tuple(_run(str(busybox), "--list-full").split()),
        netcat=_one(tree, "bin/nc.openbsd").read_bytes(),
        dhcp6c=_one(tree, "usr/sbin/dhcp6c").read_bytes(),
        loader=_one(tree, "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2").read_bytes(),
        libraries={path: _one(tree, path).read_bytes() for path in image.LIBRARIES},
        modules=_modules(tree),
        scripts=_scripts(),
    )


def _modules(tree: Path) -> dict[str, bytes]:
    """The module files the guest needs, in order of loading, by the names they get in the guest."""
    files = {image.module_name(str(path)): path for path in tree.glob("lib/modules/*/kernel/**/*.ko")}
    if not files:
        raise HostError("the kernel package has no modules that vnet can read (looked for *.ko)")
    needs = {name: image.module_dependencies(path.read_bytes()) for name, path in files.items()}
    needs = {name: tuple(need.replace("-", "_") for need in needed) for name, needed in needs.items()}
    return {f"{name}.ko": files[name].read_bytes() for name in image.module_order(image.MODULES, needs)}


def _one(tree: Path, pattern: str) -> Path:
    found = sorted(tree.glob(pattern))
    if not found:
        raise HostError(f"the Debian packages of the micro guest have no {pattern}")
    return found[0]


def _point_at(target: Path) -> None:
    """Makes the link beside and renames it: there is always one image or the other."""
    link = paths.image_dir() / f".{_CURRENT}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.rename(paths.image_dir() / _CURRENT)


def _remove_others(target: Path) -> None:
    """Older images; guests made of them go on, QEMU holds in memory what it needs."""
    for folder in paths.image_dir().glob("micro-*"):
        if folder != target:
            shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str, cwd: Path | None = None) -> str:
    """Runs a tool and returns its output.

    Raises:
        HostError: with the command and all it printed.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S
        )
    except FileNotFoundError as error:
        raise HostError(f"{command[0]} is missing; the micro guest is made on Debian 12") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"`{' '.join(command)}` did not end in {_DOWNLOAD_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        raise HostError(f"`{' '.join(command)}` failed with {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Builds the image, progress on stderr, its folder on stdout."""
    if arguments:
        print("usage: python -m vnet.hv.live.image", file=sys.stderr)
        return 2
    try:
        made = build(lambda text: print(text, file=sys.stderr, flush=True))
    except VnetError as error:
        print(f"vnet: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(made.kernel.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
