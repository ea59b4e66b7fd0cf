#!/bin/bash
# boot.sh FOLDER PYTHON SITE PROJECT COMMAND...
#
# Runs COMMAND on a root of its own, in the namespaces that it was started in: the machine's files are seen
# through an overlay whose changes are kept in memory below FOLDER, and /tmp, /run, /dev, /proc/sys and control
# groups are others than the machine's. After pivot_root there is no way back to the machine's own root, so
# whatever a service manager does when it boots and ends, it does to nobody. The Python installation, its
# packages and the project are seen, read-only, where a hardened service may look: /opt.
set -euo pipefail
folder=$1 python=$2 site=$3 project=$4
shift 4

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$folder"
mkdir "$folder"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
cd "$folder/root"

for place in tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$place"; done
for place in run dev; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
while read -r name major minor; do mknod -m 666 "dev/$name" c "$major" "$minor"; done <<'NODES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
NODES
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
if [ -d usr/lib/systemd/system-generators ]; then
  mount -t tmpfs -o ro tmpfs usr/lib/systemd/system-generators
fi

show() {
  mkdir -p "$2"
  mount --bind "$1" "$2"
  mount -o remount,ro,bind "$2"
}
show "$python" opt/python
show "$site" opt/site
show "$project" opt/project

mkdir old
pivot_root . old
umount -l old
rmdir old
echo "the root is made"
exec "$@"
