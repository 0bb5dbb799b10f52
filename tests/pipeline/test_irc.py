"""An IRC server that nobody here wrote passes on what we say, line for line."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from billingwatch.model import Channel
from notify.cause import Delivery
from notify.send import send
from notify.telling import Message

PROGRAM = shutil.which("ngircd")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="ngIRCd is not installed: apt-get install ngircd")


@pytest.fixture
def irc(tmp_path: Path, closed_port: int) -> Iterator[int]:
    """Its port."""
    config = tmp_path / "ngircd.conf"
    config.write_text(
        f"[Global]\nName = irc.example\nInfo = test\nListen = 127.0.0.1\nPorts = {closed_port}\n"
        "ServerUID = root\nServerGID = root\n[Options]\nDNS = no\nIdent = no\nPAM = no\n"
    )
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([str(PROGRAM), "-n", "-f", str(config)], stdout=log, stderr=log)
    try:
        yield closed_port
    finally:
        process.terminate()
        process.wait(20)


def dial(port: int) -> socket.socket:
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_every_line_arrives(irc: int) -> None:
    with dial(irc) as reader, reader.makefile("rb") as lines:
        reader.sendall(b"NICK reader\r\nUSER reader 0 * :reader\r\nJOIN #ops\r\n")
        while b" 366 " not in lines.readline():  # the end of the list of names: it has joined
            pass
        told = send(
            Channel(f"irc://bw@127.0.0.1:{irc}/#ops"), Message("CRITICAL: 41 %", "24 of 58 – failed\nIn Stripe")
        )
        assert told == Delivery(ok=True)
        heard: list[str] = []
        while len(heard) < 3:
            line = lines.readline().decode()
            if " PRIVMSG " in line:
                heard.append(line.partition(" PRIVMSG ")[2].rstrip())
    assert heard == ["#ops :CRITICAL: 41 %", "#ops :24 of 58 – failed", "#ops :In Stripe"]
