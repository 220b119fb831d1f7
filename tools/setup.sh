#!/usr/bin/env bash
# Installs what vnet needs and nothing that is there already: Debian packages, then the Python parts.
#
#   tools/setup.sh demo     what running needs
#   tools/setup.sh test     that, and what the checks and tests need
#   tools/setup.sh perf     that, and what measuring needs
#   tools/setup.sh python   only the Python parts of `test`; needs no root
#   tools/setup.sh image    the micro guest, made from Debian packages
#   tools/setup.sh guests   guests with other kernels, in which tests try the switch; likewise
#   tools/setup.sh distro   a distribution as a guest, out of Debian packages; likewise
#   tools/setup.sh conformance  os-ken's OpenFlow switch tests, in a virtual environment of their own
#   tools/setup.sh faucet   Faucet, a controller that tests put in charge of the switch; likewise
#
# Safe to run again and to interrupt: what is complete is remembered by a stamp, the rest is done anew.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/lib.sh

readonly WHAT=${1:-demo}
readonly PYTHON=${PYTHON:-/usr/bin/python3}
readonly LOG=$PWD/build/setup.log
readonly VENV=$PWD/.venv
readonly POLICY=/usr/sbin/policy-rc.d # asked by every Debian package before it starts a service
readonly POLICY_MARK="made by vnet's tools/setup.sh, removed at its end"

main() {
    case $WHAT in
    demo) packages demo && python_parts demo ;;
    test) packages demo test && python_parts test && apart faucet && apart conformance ;;
    perf) packages demo test perf && python_parts test ;;
    python) python_parts test ;;
    image) guest_image ;;
    guests) kernel_guests ;;
    distro) distro_guest ;;
    conformance | faucet) apart "$WHAT" ;;
    *) die "usage: tools/setup.sh demo|test|perf|python|image|guests|distro|conformance|faucet" ;;
    esac
}

# ---- Debian packages -------------------------------------------------------------------------------

packages() { # SECTION...
    local missing
    command -v dpkg-query >/dev/null || die "this is not a Debian system" \
        "vnet is made for Debian 12; elsewhere install by hand what packaging/apt.txt lists," \
        "then run: tools/setup.sh python"
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    say "Debian packages: $(echo $missing)"
    [ "$(id -u)" = 0 ] || die "packages are missing and only root can install them:" \
        "$(echo $missing)" "run this again as root, or: sudo apt-get install --no-install-recommends $(echo $missing)"
    warn_of_other_release
    install_packages $missing
}

missing_packages() { # SECTION...
    local name
    for name in $(listed_packages "$@"); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

listed_packages() { # SECTION...
    awk -v wanted=" $* " '
        { sub(/#.*/, "") }
        /^\[/ { section = substr($1, 2, length($1) - 2); next }
        NF && index(wanted, " " section " ") { print $1 }' packaging/apt.txt
}

warn_of_other_release() {
    local id version
    id=$(. /etc/os-release && echo "${ID:-unknown}")
    version=$(. /etc/os-release && echo "${VERSION_ID:-unknown}")
    [ "$id $version" = "debian 12" ] || note "made for Debian 12, this is $id $version: some packages may have other names"
}

install_packages() { # NAME...
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C
    [ -z "$(dpkg --audit)" ] || run_visibly "finishing an interrupted installation" dpkg --configure -a
    can_install "$@" || run_visibly "package lists" apt-get -q update
    can_install "$@" || die "apt does not know all of: $*" "see: apt-get install --simulate $*"
    # The one question that a package asks: may everybody capture on the host? No.
    command -v debconf-set-selections >/dev/null &&
        echo 'wireshark-common wireshark-common/install-setuid boolean false' | debconf-set-selections
    without_starting_services apt_install "$@"
}

can_install() { apt-get -q --simulate install --no-install-recommends "$@" >/dev/null 2>&1; }

apt_install() { # NAME...
    local options=(-q -y --no-install-recommends -o DPkg::Lock::Timeout=300)
    options+=(-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)
    # Lists that are days old name versions that are gone: then once more with fresh ones.
    try_visibly "download" apt-get "${options[@]}" --download-only install "$@" ||
        run_visibly "package lists" apt-get -q update
    run_visibly "packages" apt-get "${options[@]}" install "$@"
}

# Tests start an Open vSwitch of their own; the package's service is not wanted.
without_starting_services() { # COMMAND...
    if [ ! -e $POLICY ] || grep -q "$POLICY_MARK" $POLICY; then
        trap 'rm -f $POLICY' EXIT
        printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" >$POLICY
        chmod +x $POLICY
        "$@"
        rm -f $POLICY
    else
        "$@"
    fi
}

# ---- Python parts ----------------------------------------------------------------------------------

python_parts() { # demo|test
    local files=(-r packaging/requirements.txt) hash
    hash=$(state_hash)
    if [ -e "$VENV/.vnet-$1-$hash" ]; then return 0; fi
    if [ "$1" = test ]; then files+=(-r packaging/requirements-dev.txt); fi
    say "Python packages in .venv"
    usable_python
    usable_venv
    rm -f "$VENV"/.vnet-*
    pip_install "build tools" --require-hashes -r packaging/requirements-build.txt
    pip_install "packages" --require-hashes --no-build-isolation "${files[@]}"
    pip_install "vnet" --no-build-isolation --no-deps --editable .
    touch "$VENV/.vnet-demo-$hash" "$VENV/.vnet-$1-$hash"
}

# Changes when a pinned version, the interpreter, the checkout's place or vnet's own metadata does.
state_hash() {
    local hash
    hash=$(cat packaging/requirements*.txt pyproject.toml - <<<"$PWD $PYTHON" | sha256sum)
    echo "${hash:0:16}"
}

usable_python() {
    [ -x "$PYTHON" ] || die "there is no $PYTHON" "install python3-venv, or name another one: PYTHON=/path/to/python3"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$PYTHON is older than 3.11" "name another one: PYTHON=/path/to/python3"
    "$PYTHON" -c 'import ensurepip' 2>/dev/null ||
        die "$PYTHON cannot make virtual environments" "as root: apt-get install python3-venv"
}

usable_venv() {
    if "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then return 0; fi
    rm -rf "$VENV"
    run_visibly "virtual environment" "$PYTHON" -m venv "$VENV"
}

pip_install() { pip_install_in "$VENV" "$@"; } # LABEL ARGUMENT...

pip_install_in() { # VENV LABEL ARGUMENT...
    local venv=$1 label=$2
    shift 2
    run_visibly "$label" "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
        --progress-bar off "$@"
}

# ---- other people's controllers ---------------------------------------------------------------------

# Apart from .venv: what examines the switch shares nothing with it that could change under it.
apart() { # conformance|faucet
    local file=packaging/requirements-$1.txt venv=$PWD/build/venv-$1 hash
    hash=$(cat "$file" - <<<"$PWD $PYTHON" | sha256sum)
    if [ -e "$venv/.complete-${hash:0:16}" ]; then return 0; fi
    say "Packages of $1 in build/venv-$1"
    usable_python
    rm -rf "$venv"
    run_visibly "virtual environment" "$PYTHON" -m venv "$venv"
    pip_install_in "$venv" "build tools" --require-hashes -r packaging/requirements-build.txt
    pip_install_in "$venv" "packages" --require-hashes --no-build-isolation -r "$file"
    touch "$venv/.complete-${hash:0:16}"
}

# ---- the micro guest -------------------------------------------------------------------------------

guest_image() {
    local there='import sys; from vnet.hv.live.image import current; sys.exit(current() is None)'
    if "$VENV/bin/python" -c "$there"; then return 0; fi
    [ "$(id -u)" = 0 ] || [ -n "${VNET_STATE_DIR:-}" ] ||
        die "the micro guest is kept in /var/lib/vnet, where only root may write" \
            "run this as root, or name a folder of yours: VNET_STATE_DIR=..."
    say "Micro guest (kernel, busybox and agent out of Debian packages; nothing of them is installed)"
    package_lists
    run_visibly "micro guest" "$VENV/bin/python" -m vnet.hv.live.image
}

package_lists() {
    apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || run_visibly "package lists" apt-get -q update
}

# ---- guests with other kernels ---------------------------------------------------------------------

kernel_guests() {
    if "$VENV/bin/python" -m tests.vm.kernel_lab --made; then return 0; fi
    say "Guests with other kernels (out of Debian packages; nothing of them is installed)"
    package_lists
    run_visibly "guests" "$VENV/bin/python" -m tests.vm.kernel_lab
}

distro_guest() { # in the host's own store of images, where tests find it
    if "$VENV/bin/python" -m vnet.hv.live.distro --made; then return 0; fi
    say "Distribution guest (a Debian out of packages; nothing of them is installed)"
    package_lists
    run_visibly "distribution" "$VENV/bin/python" -m vnet.hv.live.distro
}

main
