"""Podman with a storage of its own, and a base image of Debian's packages."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BASE_IMAGE", "Podman", "until"]

BASE_IMAGE = "localhost/python-base:bookworm"
WITHIN_S = 300
RELEASE, PACKAGES = "bookworm", "ca-certificates,python3,python3-venv"
MIRROR = "http://deb.debian.org/debian"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a machine knows of its package index, shown to the build's steps.
INDEX_SETTINGS = (
    Path("/etc/pip.conf"),
    Path.home() / ".config/pip/pip.conf",
    Path("/etc/ssl/certs"),
)
# crun and systemd are not everywhere; few containers are allowed to raise limits.
CONFIG = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# As in the official image: apt keeps nothing.
DOCKER_CLEAN = """
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""


@dataclass(frozen=True)
class Podman:
    """Commands of podman, with images and containers in `folder`."""

    folder: Path

    def missing(self) -> str | None:
        """Returns a sentence why no container can run on this machine; None if one can."""
        for program in ("podman", "runc", "debootstrap"):
            if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
                return f"{program} is missing (sh scripts/install_container_tools.sh)."
        if os.geteuid() != 0:
            return "debootstrap makes the base image, as root only."
        try:
            self.run("info")
        except AssertionError as error:
            return f"podman does not run here: {error}"
        return None

    def run(self, *arguments: str, given: str | None = None, check: bool = True) -> str:
        """The output of a command; raises `AssertionError` with its words if it fails."""
        done = subprocess.run(
            ["podman", *arguments],
            env=self._environment(), input=given, capture_output=True, text=True,
        )  # fmt: skip
        assert not check or not done.returncode, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def logs(self, name: str) -> str:
        """Returns the log of a container, of both its streams."""
        command, environment = ["podman", "logs", name], self._environment()
        both = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return both.stdout

    def inspect(self, name: str) -> Any:
        """Returns the description of an image or a container."""
        (told,) = json.loads(self.run("inspect", name))
        return told

    def remove_all(self) -> None:
        """Removes pods, containers, volumes and secrets; images stay."""
        for kind in ("pod", "container"):
            self.run(kind, "rm", "--all", "--force", "--time=0")
        self.run("volume", "rm", "--all", "--force")
        self.run("secret", "rm", "--all")

    def inspect_volume(self, name: str) -> Any:
        """Returns the description of a volume."""
        (told,) = json.loads(self.run("volume", "inspect", name))
        return told

    def build(self, context: Path, tag: str, *options: str, has_index: bool = True) -> str:
        """Builds a target of a Dockerfile and returns the log of its steps.

        Its steps find the package index of Python as this machine does, unless `has_index` is
        False: packages that write certificates are installed without.
        """
        paths = [path for path in INDEX_SETTINGS if has_index and path.exists()]
        binds = [f"--volume={path}:{path}:ro" for path in paths]
        return self.run(
            *("build", "--isolation=chroot", "--network=host", "--pull=never"),
            *(*binds, f"--build-arg=PYTHON_IMAGE={BASE_IMAGE}", f"--tag={tag}"),
            *(*options, str(context)),
        )

    def make_base_image(self) -> None:
        """Makes the base image, unless there is one: Debian and its Python, as slim as theirs."""
        if BASE_IMAGE in self.run("images", "--format={{.Repository}}:{{.Tag}}").split():
            return
        root = self.folder / "base"
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, root, MIRROR],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        (root / "etc/apt/apt.conf.d/docker-clean").write_text(DOCKER_CLEAN)
        for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt",
                     "var/lib/apt/lists"):  # fmt: skip
            shutil.rmtree(root / name)
        packed = self.folder / "base.tar"
        subprocess.run(["tar", "-C", root, "-cf", packed, "."], check=True)
        self.run("import", "--change", f"ENV PATH={PATH}", str(packed), BASE_IMAGE)
        shutil.rmtree(root)
        packed.unlink()

    def _environment(self) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        config, storage = self.folder / "containers.conf", self.folder / "storage.conf"
        config.write_text(CONFIG)
        places = f'graphroot = "{self.folder}/images"\nrunroot = "{self.folder}/run"\n'
        storage.write_text(f'[storage]\ndriver = "overlay"\n{places}')
        return os.environ | {
            "CONTAINERS_CONF": str(config),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_FORMAT": "docker",  # the other format has no HEALTHCHECK
        }


def until(claim: Callable[[], bool], log: Callable[[], str] = str) -> None:
    """Returns once the claim is true; an `AssertionError` with the log after five minutes."""
    deadline = time.monotonic() + WITHIN_S
    while not claim():
        assert time.monotonic() < deadline, log()
        time.sleep(0.2)
