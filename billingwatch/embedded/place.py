"""Where an embedded server lives, and as which user of this machine.

Answers from permission bits alone, before anything is made. Makes folders of ours only: the mode of a folder that was
there before is never changed, and no user is ever created.
"""

import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

SHELTER = Path(
    "/var/lib/billingwatch"
)  # root's data, where the user who runs Postgres cannot enter the folder asked for
UNPRIVILEGED = ("postgres", "_postgres", "nobody")  # Debian and most others; macOS; everywhere
SOCKET_LENGTH = 103  # bytes of a socket's path without the closing NUL: 103 on macOS, 107 on Linux


class EmbeddedError(Exception):
    """An embedded server could not be found, started or stopped; says why, and what to do about it."""


class Account(Struct, frozen=True):
    """A user of this machine who runs a server in root's stead."""

    uid: int
    gid: int


class Home(Struct, frozen=True):
    """The folder of one server, and who runs it; `account` is None where that is whoever we are."""

    path: Path
    account: Account | None


def find_package(name: str, distribution: str) -> Path:
    """The folder of an installed package, which is not imported: importing these touches files outside of it.

    Raises EmbeddedError where it is not installed.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"{distribution} is not installed. Install it with: pip install 'billingwatch[embedded]'"
            " - or set DATABASE_URL and REDIS_URL to servers of your own"
        )
    return Path(spec.origin).resolve().parent


def find_unprivileged() -> Account:
    """The user to run Postgres as when we are root, which it refuses to be; EmbeddedError where there is none."""
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        f"Postgres refuses to run as root, and this machine has none of the users {', '.join(UNPRIVILEGED)}."
        " Run BillingWatch as another user, or set DATABASE_URL"
    )


def find_owner(path: Path) -> Account | None:
    """Who owns `path`, where we are root and another user does; None where we can simply be ourselves."""
    if os.geteuid() != 0 or not path.exists():
        return None
    status = path.stat()
    return Account(status.st_uid, status.st_gid) if status.st_uid != 0 else None


def may(path: Path, account: Account, wanted: int) -> bool:
    """Whether the permission bits of `path` itself give `account` all of `wanted` (4 read, 2 write, 1 search)."""
    status = path.stat()
    if status.st_uid == account.uid:
        bits = status.st_mode >> 6
    elif status.st_gid == account.gid:
        bits = status.st_mode >> 3
    else:
        bits = status.st_mode
    return bits & wanted == wanted


def can_enter(folder: Path, account: Account) -> bool:
    """Whether `account` may walk into `folder`: search permission on it and all above; those still to make are ours."""
    resolved = folder.resolve()
    return all(may(path, account, 1) for path in (resolved, *resolved.parents) if path.exists())


def can_read(tree: Path, account: Account) -> bool:
    """Whether `account` may enter `tree`, read every file below it and run those that their owner may run."""
    if not can_enter(tree, account):
        return False
    for folder, _, files in os.walk(tree):
        if not may(Path(folder), account, 5):
            return False
        for file in (Path(folder, name) for name in files):
            if not may(file, account, 5 if file.stat().st_mode & stat.S_IXUSR else 4):
                return False
    return True


def make_folder(path: Path, mode: int, account: Account | None = None) -> None:
    """Make `path` with `mode`, owned by `account`, unless it is there; as root, parents it lacks become 0755.

    Raises EmbeddedError where we may not.
    """
    try:
        for parent in reversed([parent for parent in path.parents if not parent.exists()]):
            _make_one(parent, 0o755 if os.geteuid() == 0 else None, None)
        _make_one(path, mode, account)
    except OSError as error:
        raise EmbeddedError(f"cannot make the folder {path}: {error.strerror}. Choose another data folder") from error


def _make_one(path: Path, mode: int | None, account: Account | None) -> None:
    try:
        path.mkdir(0o777 if mode is None else mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    if mode is not None:
        path.chmod(mode)  # the umask took its part of it
    if account is not None:
        os.chown(path, account.uid, account.gid)


def find_shelter(folder: Path) -> Path:
    """The place in `SHELTER` of the server whose data cannot stand in `folder`."""
    named = folder.parent.name if folder.name.startswith(".") else folder.name
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", named).strip("-") or "data"
    return SHELTER / f"{name[:32]}-{_digest(folder)}"


def find_socket_folder(home: Home, socket: str) -> Path:
    """A 0700 folder of `home.account` for the file `socket`: in its home, or of ours under the temporary folder.

    The second where the path would be too long for a socket, or where it has a comma, at which libpq splits it.
    Raises EmbeddedError where somebody else holds that name.
    """
    near = home.path / "socket"
    if _fits(near / socket):
        make_folder(near, 0o700, home.account)
        return near
    for temporary in dict.fromkeys((Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve())):  # noqa: S108
        far = temporary / f"billingwatch-{_digest(home.path)}"
        if _fits(far / socket) and (home.account is None or can_enter(temporary, home.account)):
            make_folder(far, 0o700, home.account)
            if not _is_ours(far, home.account):
                raise EmbeddedError(f"{far} belongs to somebody else. Remove it, or set TMPDIR to another folder")
            return far
    raise EmbeddedError(f"no folder is short enough for a socket of {home.path}. Set TMPDIR to a short path")


def remove_socket_folder(home: Home, folder: Path) -> None:
    """Remove a socket folder that does not stand in its home, if it is still ours."""
    if folder.name == f"billingwatch-{_digest(home.path)}" and _is_ours(folder, home.account):
        shutil.rmtree(folder)


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= SOCKET_LENGTH and "," not in str(socket)


def _is_ours(folder: Path, account: Account | None) -> bool:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    owner = os.geteuid() if account is None else account.uid
    return stat.S_ISDIR(status.st_mode) and status.st_uid == owner and not status.st_mode & 0o077


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:10]


def lend(package: Path, distribution: str, home: Home) -> Path:
    """`package` where `home.account` can read it, else a world-readable copy of it in `home`, made once a version."""
    libraries = package.with_name(f"{package.name}.libs")  # where auditwheel puts what the programs link to
    trees = [*_programs(package), *(tree for tree in (libraries, package / ".dylibs") if tree.exists())]
    if home.account is None or all(can_read(tree, home.account) for tree in trees):
        return package
    try:
        release = version(distribution)
    except PackageNotFoundError:
        release = "unknown"
    copy = home.path / f"wheel-{release}"
    if not copy.exists():
        for old in home.path.glob("wheel-*"):  # of other versions, or a copy that was cut off
            shutil.rmtree(old)
        part = home.path / "wheel-part"
        for tree in trees:
            shutil.copytree(tree, part / tree.relative_to(package.parent), ignore=shutil.ignore_patterns("*.a", "doc"))
        for folder, _, files in os.walk(part):
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        part.rename(copy)
    return copy / package.name


def _programs(package: Path) -> Iterator[Path]:
    for name in ("bin", "lib", "share"):
        yield package / "pginstall" / name
