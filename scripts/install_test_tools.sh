#!/bin/sh
# Installs the distribution's programs that some tests talk to, where they are missing and apt is there.
# Tests that need one skip without it, but not in continuous integration.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_postgresql.sh
command -v apt-get >/dev/null || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
is_updated=

update_lists() {
    [ -n "$is_updated" ] || $sudo apt-get update -qq
    is_updated=yes
}

install_packages() {
    update_lists
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

lacks() {
    ! command -v "$1" >/dev/null
}

if lacks chromium-headless-shell; then
    # distributions that have no package of the shell alone have it in the browser
    install_packages chromium-headless-shell fonts-liberation || install_packages chromium fonts-liberation
fi
! lacks chromium || install_packages chromium || true # the shell installs no pages
if ! lacks fc-list && [ -z "$(fc-list :lang=zh)" ]; then
    install_packages fonts-wqy-microhei # 2 MB: screenshots of the page in Chinese have its letters, too
fi
! lacks npm || install_packages nodejs npm
{ ! lacks kubectl || ! lacks kustomize; } || install_packages kubectl
! lacks systemd-analyze || install_packages systemd
! lacks espeak-ng || install_packages espeak-ng
! lacks nginx || [ -x /usr/sbin/nginx ] || install_packages nginx-light
! lacks caddy || install_packages caddy
! lacks zsh || install_packages zsh
! lacks fish || install_packages fish
if lacks promtool; then
    # the tool alone: the package starts a Prometheus
    update_lists
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -qq prometheus && dpkg-deb --extract prometheus_*.deb .)
    $sudo install "$folder/usr/bin/promtool" /usr/local/bin/promtool
    rm -r "$folder"
fi
