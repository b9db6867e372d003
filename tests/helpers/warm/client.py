"""Asks the server to run what this program was asked to run, and ends as that ended. It imports little."""

import array
import json
import os
import signal
import socket
import sys


def main(python: str, dvc: str) -> None:
    words = sys.argv
    place = os.environ.get("TESSERA_TESTS_WARM")
    if place is None or not (words[0] == "dvc" or words[1:2] == ["-m"]):
        _cold(python, dvc)
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(place)
    except OSError:
        _cold(python, dvc)
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    asked = {"words": words, "folder": os.getcwd(), "ignored": ignored, "environment": dict(os.environ)}
    content = json.dumps(asked).encode()
    streams = array.array("i", [0, 1, 2])
    head = len(content).to_bytes(8, "big")
    server.sendmsg([head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    server.sendall(content)
    answer = server.makefile("r")
    child = int(answer.readline())
    if child < 0:
        _cold(python, dvc)
    for one in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, lambda number, _: os.kill(child, number))
    status = int(answer.readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _cold(python: str, dvc: str) -> None:
    words = sys.argv[1:]
    os.execv(python, [python, *([dvc] if sys.argv[0] == "dvc" else []), *words])
