"""Guests with Python inside, for what has to be tried under another kernel than this machine's.

They are made like the micro guest (`vnet.hv.image`): kernel and modules out of their Debian package,
programs with the libraries that `ldd` names, all in one initramfs. What else is in one is its recipe.
Kept under `build/guests/` by recipe and this file; nothing is installed.
"""

from __future__ import annotations

import compileall
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vnet.hv import image
from vnet.hv.image import Entry, directory, regular, symlink

FOLDER = Path(__file__).resolve().parents[2] / "build" / "guests"
DIGITS = 12
"""Of the hash in a guest's name."""
BUSYBOX = "busybox-static"
LIBBPF = Path("/usr/lib/x86_64-linux-gnu/libbpf.so.1")
SITE_PACKAGES = ("pyroute2", "os_ken", "netaddr", "oslo_config", "packaging", "pbr", "rfc3986",
                 "stevedore", "idna", "yaml", "debtcollector", "wrapt", "typing_extensions.py")  # fmt: skip
"""What vnet's dataplane imports, and what that imports."""
NOT_OF_THE_LIBRARY = {
    "test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "pydoc_data", "distutils", "turtledemo",
    "__pycache__", "dbm", "curses", "wsgiref", "xmlrpc", "dist-packages",
}  # fmt: skip

SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
STABLE = "bookworm"
SUITES = {"6.1": STABLE, "6.12": "bookworm-backports"}
"""Which suite of Debian has which kernel."""

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox mount -t tmpfs run /run
/bin/busybox --install -s /bin
for module in $(cat /lib/modules/order); do insmod /lib/modules/$module || echo "no module $module"; done
echo 0 >/proc/sys/kernel/randomize_va_space
export PATH=/usr/sbin:/usr/bin:/bin PYTHONPATH=/tree PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 HOME=/root
cd /tree
python3 -u -m {command}
poweroff -f
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a guest holds besides its kernel, Busybox, Python and libbpf."""

    name: str
    command: str
    """The Python module that runs in `/tree`, with its arguments."""
    modules: tuple[str, ...]
    """Of the kernel; what they need is added."""
    host_programs: tuple[str, ...] = ()
    host_files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Debian packages to unpack."""
    unpacked_programs: tuple[str, ...] = ()
    """Paths of what is taken out of them."""


@dataclass(frozen=True, slots=True)
class Image:
    kernel: Path
    initrd: Path


def ensure(recipe: Recipe, suite: str) -> Image:
    """The guest with the kernel of a suite, made if its recipe or this file has changed since."""
    target = place(recipe, suite)
    if not target.is_dir():
        _make(target, recipe, suite)
        for older in set(FOLDER.glob(f"{recipe.name}-{suite}-{'?' * DIGITS}")) - {target}:
            shutil.rmtree(older)
    return Image(target / "vmlinuz", target / "initrd")


def place(recipe: Recipe, suite: str) -> Path:
    """The folder of a guest, whether it has been made or not."""
    text = repr(recipe).encode() + Path(__file__).read_bytes() + sys.version.encode()
    return FOLDER / f"{recipe.name}-{suite}-{hashlib.sha256(text).hexdigest()[:DIGITS]}"


def _make(target: Path, recipe: Recipe, suite: str) -> None:
    work = target.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("packages", "tree", "image", "python"):
        (work / name).mkdir(parents=True)
    _unpack(work, recipe, suite)
    entries = (
        *_frame(recipe),
        *_modules(work / "tree", recipe),
        *_programs(work / "tree", recipe),
        *_python(work / "python"),
    )
    (work / "image" / "initrd").write_bytes(image.write_cpio(_with_parents(entries)))
    shutil.copyfile(next((work / "tree").glob("boot/vmlinuz-*")), work / "image" / "vmlinuz")
    (work / "image").rename(target)
    shutil.rmtree(work)


def _unpack(work: Path, recipe: Recipe, suite: str) -> None:
    _download(work / "packages", (BUSYBOX, *recipe.packages), ())
    _download(work / "packages", (image.KERNEL_META_PACKAGE,), _apt_of(suite, work))
    for package in sorted((work / "packages").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(work / "tree"))


def _download(folder: Path, packages: Sequence[str], options: Sequence[str]) -> None:
    if packages == (image.KERNEL_META_PACKAGE,):
        depends = _run("apt-cache", *options, "show", "--no-all-versions", *packages)
        packages = (image.kernel_package(re.findall(r"^Depends: (.*)$", depends, re.MULTILINE)[0]),)
    options = ("-q", "-o", "APT::Sandbox::User=root", *options) if os.geteuid() == 0 else ("-q", *options)
    _run("apt-get", *options, "download", *packages, cwd=folder)


def _apt_of(suite: str, work: Path) -> tuple[str, ...]:
    """Options that let apt see only `suite` of this machine's archive, and leave its own lists alone."""
    if suite == STABLE:
        return ()
    folder = work / "apt"
    (folder / "lists" / "partial").mkdir(parents=True)
    found = re.search(r"^URIs: (\S+)(?:.*\n)+?Signed-By: (\S+)", SOURCES.read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f"{SOURCES} does not tell where Debian's packages come from")
    (folder / "sources").write_text(f"deb [signed-by={found[2]}] {found[1]} {suite} main\n")
    settings = {
        "Dir::Etc::sourcelist": folder / "sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
    }
    options = tuple(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))
    _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", *options, "update")
    return options


def _frame(recipe: Recipe) -> Iterator[Entry]:
    for path in ("dev", "proc", "sys", "run", "tmp", "root", "bin", "var", "tree"):
        yield directory(path)
    yield Entry("dev/console", 0o020600, device=(5, 1))
    yield regular("init", INIT.format(command=recipe.command).encode(), executable=True)
    yield symlink("var/run", "/run")
    yield regular("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    yield regular("etc/group", b"root:x:0:\n")


def _modules(tree: Path, recipe: Recipe) -> Iterator[Entry]:
    paths = tree.glob("**/lib/modules/*/kernel/**/*.ko*")
    files = {image.module_name(path.name.removesuffix(".xz")): path for path in paths}
    needs: dict[str, tuple[str, ...]] = {}
    waiting = list(recipe.modules)
    while waiting:  # later kernels compress their modules: read only those that are needed
        name = waiting.pop()
        if name in files and name not in needs:
            depends = image.module_dependencies(_module(files[name]))
            needs[name] = tuple(need.replace("-", "_") for need in depends)
            waiting += needs[name]
    order = image.module_order(recipe.modules, needs)
    for name in order:
        yield regular(f"lib/modules/{name}.ko", _module(files[name]))
    yield regular("lib/modules/order", "".join(f"{name}.ko\n" for name in order).encode())


def _module(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _programs(tree: Path, recipe: Recipe) -> Iterator[Entry]:
    yield regular("bin/busybox", next(tree.glob("bin/busybox")).read_bytes(), executable=True)
    programs = [(f"usr/sbin/{Path(path).name}", Path(path)) for path in recipe.host_programs]
    programs += [(path, tree / path) for path in recipe.unpacked_programs]
    programs += [("usr/bin/python3", Path(sys.executable).resolve())]
    extensions = Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so")
    libraries: dict[str, Path] = {}
    for path in (*(path for _, path in programs), LIBBPF, *extensions, *_packages_extensions()):
        libraries |= _libraries(path, tree)
    libraries[f"lib/x86_64-linux-gnu/{LIBBPF.name}"] = LIBBPF
    for target, path in programs:
        yield regular(target, path.read_bytes(), executable=True)
    for name in recipe.host_files:
        yield regular(name.lstrip("/"), Path(name).read_bytes())
    for target, path in libraries.items():
        yield regular(target, path.read_bytes(), executable=True)


def _packages_extensions() -> Iterator[Path]:
    """Compiled modules of the packages that go along."""
    for name in SITE_PACKAGES:
        yield from (_site_packages() / name).rglob("*.so")


def _site_packages() -> Path:
    return next(Path(path) for path in sys.path if path.endswith("site-packages"))


def _libraries(program: Path, tree: Path) -> dict[str, Path]:
    """Where the loader looks in the guest, by what it found here."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tree / "usr/lib/x86_64-linux-gnu")}
    listed = subprocess.run(["ldd", str(program)], env=environment, capture_output=True, text=True).stdout
    found = {}
    for name, path in re.findall(r"^\s+(?:(\S+) => )?(/\S+) \(0x", listed, re.MULTILINE):
        target = f"lib/x86_64-linux-gnu/{name}" if name else path.lstrip("/")
        found[target] = Path(path)
    return found


def _python(work: Path) -> Iterator[Entry]:
    """The standard library and what vnet imports, compiled without looking at times: a cpio has none."""
    library = Path(sysconfig.get_path("stdlib"))
    _copy_modules(library, work / library.name)
    site = _site_packages()
    for name in SITE_PACKAGES:
        source = site / name
        if source.is_dir():
            _copy_modules(source, work / library.name / "dist-packages" / name)
        elif source.exists():
            shutil.copy(source, work / library.name / "dist-packages")
    for path in site.glob("*.dist-info"):  # some ask for their own version
        if path.name.startswith(("pbr", "os_ken", "oslo", "pyroute2")):
            shutil.copytree(path, work / library.name / "dist-packages" / path.name)
    compile_tree(work)
    for path in sorted(work.rglob("*")):
        if path.is_file():
            yield regular(f"usr/lib/{path.relative_to(work)}", path.read_bytes())


def _copy_modules(source: Path, target: Path) -> None:
    def unwanted(folder: str, names: list[str]) -> Iterable[str]:
        return [name for name in names if name in NOT_OF_THE_LIBRARY or name.startswith("config-")]

    shutil.copytree(source, target, ignore=unwanted)


def compile_tree(folder: Path) -> None:
    """Byte code beside every module, which is not compared with its source."""
    mode = compileall.py_compile.PycInvalidationMode.UNCHECKED_HASH  # type: ignore[attr-defined]
    compileall.compile_dir(str(folder), quiet=2, workers=2, invalidation_mode=mode, stripdir=str(folder))


def archive(folder: Path) -> bytes:
    """A cpio archive of a folder that unpacks as `/tree`."""
    return image.write_cpio(_entries(folder))


def _entries(folder: Path) -> list[Entry]:
    found = []
    for path in sorted(folder.rglob("*")):
        name = f"tree/{path.relative_to(folder)}"
        found.append(directory(name) if path.is_dir() else regular(name, path.read_bytes()))
    return found


def _with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """Each folder before what is in it, once."""
    made: dict[str, Entry] = {}
    for entry in entries:
        parents = list(Path(entry.path).parents)[:-1]
        for parent in reversed(parents):
            made.setdefault(str(parent), directory(str(parent)))
        made[entry.path] = entry
    return list(made.values())


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout
