#!/bin/sh
# read_only.sh FOLDER COMMAND...: runs a command that can write into FOLDER and nowhere else.
# In a mount namespace of its own: unshare --mount [--map-root-user] sh read_only.sh ...
set -eu
writable=$1
shift
mount --make-rprivate /
mount --bind "$writable" "$writable"
while read -r _ _ _ _ point _; do
    case $point in
    "$writable" | /proc | /proc/* | /sys | /sys/* | /dev | /dev/*) ;; # the kernel's own, as in a container
    *) mount -o remount,bind,ro "$point" ;;
    esac
done </proc/self/mountinfo
exec "$@"
