"""Runs the Dockerfile's steps where no container engine can run, and the server that comes of them.

    python -m scripts.image_without_docker FOLDER [--bind FROM[:TO] ...] [--serve PORT]

Each stage is a folder in FOLDER, and is made anew if one of its steps is not as it was. Images that
are not built here are Debian's own packages, put together by debootstrap; their Python is Debian's.
`--bind` shows a file or folder of this machine to the steps: the settings of a package index, or
`WHEELS:/wheels`, so that llama.cpp is compiled once and not for each change. `--serve` then runs
the entry point as its user, on a root that is read-only but for `/data` and `/tmp`, until its
health check passes and its model has answered.

For root, on Debian, with debootstrap and unshare. What it does not do: layers, users of images,
`RUN --mount`, anything for GPUs.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.deploy.dockerfile import Instruction, Stage, is_sent, stages

ROOT = Path(__file__).resolve().parent.parent
MIRROR = "http://deb.debian.org/debian"
IMAGES = {"python:3.11-slim-bookworm": ("bookworm", "ca-certificates,python3,python3-venv")}
FIRST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HEALTHY_WITHIN_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stage", default="runtime")
    parser.add_argument("--bind", action="append", default=[], metavar="FROM[:TO]")
    parser.add_argument("--serve", type=int, metavar="PORT")
    options = parser.parse_args()

    builder = Builder(options.folder.resolve(), options.bind)
    root = builder.built(builder.stages[options.stage])
    say(f"{options.stage}: {root}")
    if options.serve:
        serve(root, builder.stages[options.stage], options.serve)
    return 0


class Builder:
    """Stages as folders. Each step's key is made of the step, its sources, and the key before."""

    def __init__(self, folder: Path, binds: Sequence[str]) -> None:
        self.folder = folder
        self.stages = stages(ROOT / "Dockerfile")
        self._binds = binds
        self._ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")

    def built(self, stage: Stage) -> Path:
        """The stage's folder, once all its steps have been run."""
        root, done = self.folder / stage.name, self.folder / f"{stage.name}.done"
        base = self.built(stage.parent) if stage.parent else self._image(stage.image)
        keys = list(self._keys(stage, base))
        ran = done.read_text().split() if done.exists() and root.exists() else []
        if not ran or keys[: len(ran)] != ran:
            done.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            subprocess.run(["cp", "--archive", "--reflink=auto", base, root], check=True)
            ran = keys[:1]
            done.write_text("\n".join(ran))
        environment, here = {"PATH": FIRST_PATH}, "/"
        steps = [*inherited_instructions(stage), *stage.instructions]
        for instruction in steps[: len(steps) - len(stage.instructions)]:
            environment, here = self._setting(instruction, environment, here)
        for number, instruction in enumerate(stage.instructions, start=1):
            environment, here = self._setting(instruction, environment, here)
            if number >= len(ran):
                self._do(instruction, root, environment, here)
                ran = keys[: number + 1]
                done.write_text("\n".join(ran))
        return root

    def _keys(self, stage: Stage, base: Path) -> Iterator[str]:
        finished = base.with_name(f"{base.name}.done")
        key = digest(str(base), finished.read_text() if finished.exists() else "")
        yield key
        for one in stage.instructions:
            source = one.flags.get("from")
            if source is not None:
                self.built(self.stages[source])
                sent = (self.folder / f"{source}.done").read_text()
            else:
                found = (f"{path}{path.read_bytes()!r}" for path in self._sources(one))
                sent = digest(*found)
            key = digest(key, one.name, one.text, sent)
            yield key

    def _sources(self, instruction: Instruction) -> Iterator[Path]:
        """The files that a COPY of the context sends."""
        if instruction.name != "COPY" or "from" in instruction.flags:
            return
        for word in instruction.words[:-1]:
            found = ROOT / word
            files = sorted(found.rglob("*")) if found.is_dir() else [found]
            for path in files:
                if path.is_file() and is_sent(str(path.relative_to(ROOT)), self._ignored):
                    yield path

    def _setting(
        self, instruction: Instruction, environment: dict[str, str], here: str
    ) -> tuple[dict[str, str], str]:
        if instruction.name == "WORKDIR":
            return environment, instruction.text
        if instruction.name != "ENV":
            return environment, here
        given = dict(word.split("=", 1) for word in shlex.split(instruction.text))
        path = environment["PATH"]
        return environment | {name: v.replace("$PATH", path) for name, v in given.items()}, here

    def _do(
        self, instruction: Instruction, root: Path, environment: dict[str, str], here: str
    ) -> None:
        match instruction.name:
            case "WORKDIR":
                inside(root, here).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(instruction, root, here)
            case "RUN":
                if "mount" in instruction.flags:
                    raise SystemExit(f"Not without a container engine: RUN {instruction.text}")
                say(f"RUN {instruction.text[:90]}")
                run_inside(root, instruction.text, environment, here, self._binds)

    def _copy(self, instruction: Instruction, root: Path, here: str) -> None:
        *sources, target = instruction.words
        to = inside(root, target if target.startswith("/") else f"{here}/{target}")
        if source := instruction.flags.get("from"):
            for word in sources:
                place = to / Path(word).name if target.endswith("/") else to
                place.parent.mkdir(parents=True, exist_ok=True)
                command = ["cp", "--archive", str(inside(self.folder / source, word)), str(place)]
                subprocess.run(command, check=True)
            return
        for path in self._sources(instruction):
            top = next(ROOT / word for word in sources if path.is_relative_to(ROOT / word))
            place = to / (path.relative_to(top) if top.is_dir() else path.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)

    def _image(self, name: str) -> Path:
        if name not in IMAGES:
            raise SystemExit(f"{name} cannot be put together from Debian's packages.")
        release, packages = IMAGES[name]
        root = self.folder / f"debian-{release}"
        if not (root / "usr/local/bin/python").is_symlink():
            say(f"debootstrap {release}")
            command = ["debootstrap", "--variant=minbase", f"--include={packages}", release]
            subprocess.run([*command, str(root), MIRROR], check=True, stdout=sys.stderr)
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        return root


def inherited_instructions(stage: Stage) -> list[Instruction]:
    """Returns the instructions of the parent stages, the first one's first."""
    if stage.parent is None:
        return []
    return [*inherited_instructions(stage.parent), *stage.parent.instructions]


def inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def run_inside(
    root: Path, command: str, environment: dict[str, str], here: str, binds: Sequence[str]
) -> None:
    """A shell command in a stage, which sees the network and `binds` of this machine."""
    mounts = []
    for bind in ["/etc/resolv.conf", *binds]:
        shown, _, where = bind.partition(":")
        place = inside(root, where or shown)
        place.parent.mkdir(parents=True, exist_ok=True)
        if Path(shown).is_dir():
            place.mkdir(exist_ok=True)
        elif not place.exists():
            place.touch()
        mounts.append(f"mount --bind {shlex.quote(shown)} {shlex.quote(str(place))}")
    enter = f"exec chroot {root} env -C {here} sh -c {shlex.quote(command)}"
    script = "\n".join([f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev",
                        *mounts, enter])  # fmt: skip
    subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-euc", script],
        env=environment, check=True, stdout=sys.stderr,
    )  # fmt: skip


def serve(root: Path, stage: Stage, port: int) -> None:
    """Run the entry point as a container would, until the health check passes; then end it."""
    user, group = stage.last("USER").text.split(":")
    environment = {"LLM_BACKEND_PORT": str(port), "LLM_BACKEND_API_KEYS": "sk-mine"}
    path, here = FIRST_PATH, "/"
    for one in [*inherited_instructions(stage), *stage.instructions]:
        if one.name == "ENV":
            words = dict(word.split("=", 1) for word in shlex.split(one.text))
            environment |= {name: value.replace("$PATH", path) for name, value in words.items()}
        here = one.text if one.name == "WORKDIR" else here
    command = [*stage.last("ENTRYPOINT").words, *stage.last("CMD").words]
    script = "\n".join(
        [
            f"mount --bind {root} {root}",
            f"mount -o remount,bind,ro {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            *(f"mount -t tmpfs -o mode=1777 tmpfs {root}/{name}" for name in ("data", "tmp")),
            f"exec chroot --userspec={user}:{group} {root} env -C {here} {shlex.join(command)}",
        ]
    )
    inner = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", script]
    with subprocess.Popen(inner, env=environment) as process:
        try:
            wait_healthy(root, stage, environment, process)
            say(f"healthy on port {port} as user {user}, with a root that is read-only")
            say(f"answered: {answer(port, environment['LLM_BACKEND_API_KEYS'])}")
        finally:
            subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
            process.wait(60)
    if process.returncode:
        raise SystemExit(f"The server ended with status {process.returncode}.")


def wait_healthy(
    root: Path, stage: Stage, environment: dict[str, str], process: subprocess.Popen[bytes]
) -> None:
    check = stage.last("HEALTHCHECK").inner.words
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        asked = subprocess.run(
            ["chroot", str(root), *check], env=environment, check=False, capture_output=True
        )
        if not asked.returncode:
            return
        time.sleep(0.5)
    raise SystemExit("The health check did not pass.")


def answer(port: int, key: str) -> str:
    """Returns the built-in model's answer to a chat."""
    said = [{"role": "user", "content": "Who are you?"}]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps({"model": "builtin", "messages": said}).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=HEALTHY_WITHIN_S) as response:
        text: str = json.load(response)["choices"][0]["message"]["content"]
    return text


def digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if os.geteuid():
        raise SystemExit("Only root can mount and change roots.")
    raise SystemExit(main())
