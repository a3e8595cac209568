#!/bin/sh
# Installs what `make test-image` needs and Debian has, where it is missing and apt is there.
set -eu
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
for program in podman runc debootstrap catatonit; do
    [ -x "$(command -v $program)" ] || [ -x /usr/sbin/$program ] || missing="${missing-} $program"
done
if [ -n "${missing-}" ] && command -v apt-get >/dev/null; then
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
