#!/usr/bin/env bash
# enter.sh ROOT FOLDER COMMAND...: runs a command in a userland, with FOLDER at /mnt and a clean environment, from the
# same place in FOLDER.
# In a mount namespace of its own, so that nothing stays mounted.
set -euo pipefail
if [ "$1" != --in-namespace ]; then
    exec unshare --mount -- "$0" --in-namespace "$@"
fi
root=$2 folder=$3
shift 3
place=/mnt${PWD#"$folder"}
mkdir -p "$root"/{proc,dev,tmp,mnt}
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$folder" "$root/mnt"
for libraries in "$root"/usr/lib/*-linux-*/; do triplet=$(basename "$libraries"); done
exec env -i HOME=/tmp TMPDIR=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 OPENBLAS_NUM_THREADS=1 \
    LD_LIBRARY_PATH="/usr/lib/$triplet/blas:/usr/lib/$triplet/lapack" chroot "$root" env --chdir "$place" "$@"
