"""Starts `trimtab` by forking a process that has imported torch, so that a start takes no second of importing.

    python forked.py SOCKET

A client sends one line of JSON (arguments, environment, folder, limit on the size of files, a script in place of the
command line) and the descriptor that is written to; it hears the pid, then the exit code. What runs has a process and a
session of its own: for the kernel, for signals and for who reads its output it is like any other.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import trimtab.cli
import trimtab.trainer


def serve(path: Path) -> None:
    """Until whoever started it is gone: its standard input is closed then."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(16)
    print("ready", flush=True)
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait for one process each
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _keep(connection)
            connection.close()
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def _keep(connection: socket.socket) -> NoReturn:
    """Fork what was asked for, and tell how it ends."""
    text, (output,), _, _ = socket.recv_fds(connection, 1 << 20, 1)
    asked = json.loads(text)
    if (pid := os.fork()) == 0:
        _become(asked, output)
    os.close(output)
    connection.sendall(f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _become(asked: dict[str, Any], output: int) -> NoReturn:
    code: object = 99
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.closerange(3, 256)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        if (limit := asked["file_limit_bytes"]) is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        script = asked["script"]
        sys.argv = [script or str(trimtab.cli.__file__), *asked["arguments"]]
        if script is None:
            trimtab.cli.main()
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
