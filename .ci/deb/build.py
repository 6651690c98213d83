"""Build the Debian package: batchd and what it needs under /opt/batchd, for the Python of one Debian release.

    make deb                       for the release that this machine runs
    make deb SUITE=trixie          for others ("bookworm trixie"): nothing of the target runs here, its wheels are only
                                   unpacked
    make deb EXTRAS=charts,xlsx    with optional parts (default: xlsx)

Needs dpkg-deb and an index of wheels, no root and no debhelper. Two builds of one commit give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PREFIX = "opt/batchd"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_OLDEST_GLIBC = 17
_KNOWS_BACKOFF = 254  # the first systemd that knows RestartSteps=


@dataclass(frozen=True, slots=True)
class Order:
    """The packages that are asked for of one release: `revisions` differ in their version alone."""

    release: Release
    arch: str
    extras: str
    revisions: tuple[str, ...]
    level: int


@dataclass(frozen=True, slots=True)
class Release:
    """What differs between the releases of Debian: `number` orders the packages' versions."""

    suite: str
    number: int
    python: str
    glibc: int
    systemd: int


RELEASES = {
    release.suite: release
    for release in (
        Release("bookworm", 12, python="3.11", glibc=36, systemd=252),
        Release("trixie", 13, python="3.13", glibc=41, systemd=257),
    )
}


def main() -> None:
    """Build the package that the command line asks for and print its path."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        *("--suite", "-s"),
        dest="suites",
        nargs="+",
        default=[suite_of_this_machine()],
        help="bookworm, trixie (default: this machine's)",
    )
    parser.add_argument("--arch", default=_architecture(), choices=_MACHINES, help="amd64 or arm64")
    parser.add_argument("--extras", default="xlsx", help="optional parts of batchd, with commas between them")
    parser.add_argument("--revision", nargs="+", default=["1"], help="of the package, when only the packaging changed")
    parser.add_argument("--level", type=int, default=19, help="of compression, 1 (a second) to 19 (half a minute)")
    parser.add_argument("--into", type=Path, default=PROJECT / "dist", help="folder of the finished package")
    options = parser.parse_args()
    if not set(options.suites) <= set(RELEASES):
        known, unknown = " or ".join(RELEASES), " ".join(filter(None, options.suites)) or "something else"
        sys.exit(f"make deb: for {known}, and not for {unknown}; say which: make deb SUITE=trixie")
    if shutil.which("dpkg-deb") is None:
        sys.exit(
            "make deb: there is no dpkg-deb here (Debian, Ubuntu: apt-get install dpkg; others have a package dpkg)"
        )
    with tempfile.TemporaryDirectory(prefix="batchd-deb-") as folder:
        work = Path(folder)
        wheel = _wheel(work)
        for suite in options.suites:
            order = Order(RELEASES[suite], options.arch, options.extras, tuple(options.revision), options.level)
            for package in build(order, wheel, work / suite, options.into):
                sys.stdout.write(f"{package}\n")


def build(order: Order, wheel: Path, tree: Path, into: Path) -> list[Path]:
    """Lay the package out in the folder `tree`, write its revisions into another and return their paths."""
    release, arch = order.release, order.arch
    packages = tree / PREFIX / "lib" / f"python{release.python}" / "site-packages"
    shutil.copytree(_dependencies(release, arch, order.extras), packages, symlinks=True)
    shutil.unpack_archive(wheel, packages, "zip")
    version = _version(packages)
    _lay_out(tree, release)
    into.mkdir(parents=True, exist_ok=True)
    built = []
    for revision in order.revisions:
        whole_version = f"{version}-{revision}~deb{release.number}"
        _control(tree, release, arch, whole_version)
        _normalise(tree)
        built.append(into / f"batchd_{whole_version}_{arch}.deb")
        _run(
            *("dpkg-deb", "--root-owner-group", "-Zzstd", f"-z{order.level}", "--build", str(tree), str(built[-1])),
            environment={"SOURCE_DATE_EPOCH": str(_epoch())},
        )
    return built


def suite_of_this_machine() -> str:
    """Return the code name of the release that this machine runs, or an empty text."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def _dependencies(release: Release, arch: str, extras: str) -> Path:
    """Return a folder with the wheels that batchd needs, unpacked; kept until pyproject.toml or the pins change."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in filter(None, extras.split(",")):
        wanted += project["optional-dependencies"][extra]
    pins = PROJECT / ".ci" / "constraints.txt"
    mark = hashlib.sha256("\n".join([release.python, arch, *wanted, pins.read_text()]).encode()).hexdigest()[:16]
    kept = PROJECT / "build" / "deb" / f"needs-{release.suite}-{arch}-{mark}"
    if not kept.exists():
        half = kept.with_suffix(f".{os.getpid()}")
        machine = _MACHINES[arch]
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(release.glibc, _OLDEST_GLIBC - 1, -1)]
        platforms += [f"manylinux2014_{machine}"]
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
            *("--no-compile", "--ignore-installed", "--only-binary=:all:", "--implementation", "cp"),
            *("--python-version", release.python, *(f"--platform={name}" for name in platforms)),
            *("--constraint", str(pins), "--target", str(half), *wanted),
        )
        _forget_commands(half)
        half.rename(kept)
    return kept


def _forget_commands(packages: Path) -> None:
    """Remove the commands of other packages, and what is said of them: the path of this machine's Python is in both."""
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for record in packages.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not line.startswith(("../", "bin/"))))


def _wheel(work: Path) -> Path:
    _run(
        *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("wheel", "--no-deps", "--wheel-dir", str(work), str(PROJECT)),
        environment={"SOURCE_DATE_EPOCH": str(_epoch())},
    )
    (wheel,) = work.glob("batchd-*.whl")
    return wheel


def _version(packages: Path) -> str:
    (found,) = packages.glob("batchd-*.dist-info")
    return found.name.removeprefix("batchd-").removesuffix(".dist-info")


def _lay_out(tree: Path, release: Release) -> None:
    """Put everything beside the packages in its place."""
    prefix = tree / PREFIX
    # A virtual environment as `python3 -m venv` makes one, written down: the target's Python need not be here.
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(f"/usr/bin/python{release.python}")
    (prefix / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {release.python}\n"
    )
    _write(prefix / "bin" / "batchd", _command(), mode=0o755)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/batchd").symlink_to(f"/{PREFIX}/bin/batchd")

    units = tree / "usr/lib/systemd/system"
    for name in ("batchd.service", "batchd@.service", "batchd.socket"):
        _copy(PROJECT / "systemd" / name, units / name)
    if release.systemd >= _KNOWS_BACKOFF:
        for kind in ("batchd.service.d", "batchd@.service.d"):
            _copy(PROJECT / "systemd/batchd.service.d/backoff.conf", units / kind / "10-backoff.conf")
    _copy(PROJECT / "systemd/batchd.sysusers", tree / "usr/lib/sysusers.d/batchd.conf")
    _copy(PROJECT / "systemd/config.toml", tree / "etc/batchd/config.toml", mode=0o640)
    (tree / "etc/batchd").chmod(0o750)
    _documents(tree)


def _command() -> str:
    # -I would also ignore PYTHONUNBUFFERED; -P keeps the folder of the script off the path, as pip's scripts do not.
    return textwrap.dedent(f"""\
        #!/{PREFIX}/bin/python3 -P
        import sys

        from batchd.__main__ import main

        if __name__ == "__main__":
            sys.exit(main())
        """)


def _documents(tree: Path) -> None:
    documents = tree / "usr/share/doc/batchd"
    _copy(HERE / "copyright", documents / "copyright")
    _compress(PROJECT / "CHANGELOG.md", documents / "changelog.gz")
    _copy(PROJECT / "config.example.toml", documents / "examples/config.example.toml")
    for file in sorted((PROJECT / "systemd/drop-ins").iterdir()):
        _copy(file, documents / "examples/drop-ins" / file.name)
    for file in sorted((PROJECT / "systemd" / "prometheus").glob("*.rules.yml")):
        _copy(file, documents / "examples" / file.name)
    _compress(HERE / "batchd.8", tree / "usr/share/man/man8/batchd.8.gz")


def _control(tree: Path, release: Release, arch: str, version: str) -> None:
    """Write what dpkg reads: the fields, the conffiles and the scripts."""
    control = tree / "DEBIAN"
    size = sum(f.lstat().st_size for f in tree.rglob("*") if not f.is_dir() and control not in f.parents) // 1024
    values = {
        "VERSION": version,
        "ARCH": arch,
        "SIZE": str(size),
        "PYTHON": release.python,
        "GLIBC": str(release.glibc),
        "SYSTEMD": str(release.systemd),
    }
    for name, mode in (
        ("control", 0o644),
        ("conffiles", 0o644),
        ("postinst", 0o755),
        ("prerm", 0o755),
        ("postrm", 0o755),
    ):
        text = (HERE / name).read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        _write(control / name, text, mode=mode)
    sums = [
        f"{hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()}  {file.relative_to(tree)}\n"
        for file in sorted(tree.rglob("*"))
        if file.is_file() and not file.is_symlink() and control not in file.parents
    ]
    _write(control / "md5sums", "".join(sums))


def _normalise(tree: Path) -> None:
    """Take this machine's umask, clock and leftovers out of the tree."""
    epoch = _epoch()
    for path in sorted(tree.rglob("*")):
        if path.name == "__pycache__":
            shutil.rmtree(path)
        elif not path.is_symlink() and path.exists() and tree / "etc" not in path.parents:
            runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if runs else 0o644)
    tree.chmod(0o755)
    for path in (tree, *tree.rglob("*")):
        # dpkg-deb takes back what is newer; libraries that were unpacked before the commit are older.
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _architecture() -> str:
    machine = platform.machine()
    return next((arch for arch, name in _MACHINES.items() if name == machine), "amd64")


def _epoch() -> int:
    """Return the time of everything in the package: that of the commit, so that it can be built again."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    said = subprocess.run(
        ["git", "-C", str(PROJECT), "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
    )
    return int(said.stdout) if said.returncode == 0 else int((PROJECT / "CHANGELOG.md").stat().st_mtime)


def _copy(source: Path, target: Path, *, mode: int = 0o644) -> None:
    _write(target, source.read_text(), mode=mode)


def _compress(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


def _write(target: Path, text: str, *, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"make deb: {command[0]} {command[1]} … ended with {done.returncode}; its message is above")


if __name__ == "__main__":
    main()
