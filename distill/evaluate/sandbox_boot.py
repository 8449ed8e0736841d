"""Runs inside the sandbox's first process: `python -I -S sandbox_boot.py SETTINGS VERDICT_FD`, the sources on stdin.

Imports nothing but the standard library, because nothing else is there. First the walls, then the program: name spaces,
a root of its own, a process space (whose first process only waits), an unprivileged user, limits. The order matters:
each step needs what the next one takes away. Any step that fails ends everything before the program is read.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_LOCKED = _NOSUID | _NODEV | _NOEXEC | 1024 | 2048  # the last two: access times
_DETACH = 2  # umount2
_PDEATHSIG, _DUMPABLE, _NO_NEW_PRIVS = 1, 4, 38  # prctl
_NOBODY = 65534
_WORK = "/tmp"  # noqa: S108 - the sandbox's own
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache", "/dev/null")
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}

_libc = ctypes.CDLL(None, use_errno=True)

_RUNNER = """
import os, sys
verdict = int(sys.argv[1])
def run():
    names = {"__name__": "solution"}
    for file in ("solution.py", "tests.py"):
        with open(file, encoding="utf-8") as handle:
            exec(compile(handle.read(), file, "exec"), names)
try:
    run()
    said = "passed"
except BaseException as error:
    said = ("failed:%s: %s" % (type(error).__name__, error))[:400]
os.write(verdict, said.encode("utf-8", "replace"))
os._exit(0)
"""


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.argv[1])
    verdict = int(sys.argv[2])
    os.umask(0o022)  # the unprivileged user has to find its way
    try:
        source = sys.stdin.buffer.read()
        program, tests = json.loads(source)
        as_root = os.geteuid() == 0
        _separate(as_root)
        _build_root(settings)
        for name, text in (("solution.py", program), ("tests.py", tests)):
            with open(f"{_WORK}/{name}", "w", encoding="utf-8") as handle:
                handle.write(text)
        _become_first(lambda: _start(settings, verdict, as_root))
    except OSError as error:
        os.write(verdict, f"sandbox:{error.filename or 'system'}: {error.strerror}".encode())
        os._exit(97)


def _separate(as_root: bool) -> None:
    """New name spaces. Root needs no user space of its own, and keeps the rights that building takes."""
    user, group = os.geteuid(), os.getegid()
    spaces = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    _check(_libc.unshare(spaces if as_root else spaces | _NEWUSER), "unshare")
    if not as_root:
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{_NOBODY} {user} 1"),
            ("gid_map", f"{_NOBODY} {group} 1"),
        ):
            with open(f"/proc/self/{file}", "w") as handle:
                handle.write(text)
    _mount(None, "/", None, _REC | _PRIVATE)


def _build_root(settings: dict[str, Any]) -> None:
    """A root in memory with the system's libraries and Python, read-only, and go there for good."""
    root: str = settings["root"]
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, f"size={settings['disk_bytes']},mode=755,nr_inodes=2000")
    for path in dict.fromkeys((*_SYSTEM, settings["prefix"])):
        if os.path.islink(path):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.symlink(os.readlink(path), root + path)
        elif os.path.exists(path) and not path.startswith("/usr/"):
            _show(path, root + path)
    work = root + _WORK
    os.mkdir(work)
    os.chmod(work, 0o777)  # noqa: S103 - the only place the program may write to
    os.mkdir(f"{root}/.before")
    os.chdir(root)
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(0, f"not known on {os.uname().machine}", "pivot_root")
    _check(_libc.syscall(number, b".", b".before"), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.before", _DETACH), "umount")
    os.rmdir("/.before")


def _show(path: str, place: str) -> None:
    """Bind `path` to `place`, read-only."""
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "w"):
            pass
    _mount(path, place, None, _BIND | _REC)
    if path.startswith("/dev/"):
        return
    # Flags that the machine set on this file system cannot be taken away, only kept.
    kept = os.statvfs(place).f_flag & _LOCKED
    _mount(None, place, None, _BIND | _REMOUNT | _RDONLY | _NOSUID | kept)


def _become_first(start: Any) -> None:
    """The first process of the new process space waits for the program; when it ends, all in the space do."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    _check(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getpid() != 1:
        os._exit(97)
    program = os.fork()
    if program == 0:
        start()
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == program:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _start(settings: dict[str, Any], verdict: int, as_root: bool) -> None:
    try:
        os.chdir(_WORK)
        if as_root:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        seconds = max(1, int(settings["seconds"] + 0.999))
        for kind, most in (
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_AS, settings["memory_bytes"]),
            (resource.RLIMIT_FSIZE, settings["disk_bytes"] // 4),
            (resource.RLIMIT_NOFILE, 64),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, settings["processes"]),
        ):
            resource.setrlimit(kind, (most, most))
        _check(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        os.set_inheritable(verdict, True)
        python: str = settings["python"]
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 0)
        os.execve(python, [python, "-I", "-S", "-X", "utf8", "-c", _RUNNER, str(verdict)], {})  # noqa: S606
    except OSError as error:
        os.write(verdict, f"sandbox:{error.filename or 'start'}: {error.strerror}".encode())
    os._exit(97)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    given = [part.encode() if part is not None else None for part in (source, target, kind)]
    _check(_libc.mount(*given, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


if __name__ == "__main__":
    main()
