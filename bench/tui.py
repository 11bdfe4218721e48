"""What the terminal chat costs: `python -m bench.tui [--minutes M] [--idle SECONDS] [--rounds N] [--name N]`.

The chat runs as a process of its own on a pseudo terminal of 120 x 40, against a scripted server; CPU is what the
operating system counted for the chat. The terminal says that it knows synchronized output, as today's do: the chat then
marks the beginning of each repaint, and those marks are counted. `--minutes` is how long memory is watched while answer
after answer streams.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import mean

import psutil

from bench.results_file import report
from mm35local.tui.history import History
from mm35local.tui.records import Message, Role, as_path
from tests.fakes.chat_server import ChatScript, ChatServer, Pause, Say, Script

TOKENS_PER_SECOND = 200
_LONG = 5000
_TEXT = "The **loader** reads `tensors` in order, and a list follows:\n\n- one\n- two\n\n```python\nx = [1, 2]\n```\n\n"
_WORDS = _TEXT.split(" ")
_ANSWER_TOKENS = 1000
_ASKS_FOR_SYNC, _HAS_SYNC, _BEGINS_FRAME = b"\x1b[?2026$p", b"\x1b[?2026;2$y", b"\x1b[?2026h"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--idle", type=float, default=30.0)
    parser.add_argument("--name", default="tui", help="of the file in results/")
    parser.add_argument("--rounds", type=int, default=3, help="0 measures the stream alone")
    arguments = parser.parse_args()
    samples: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history.sqlite3"
        asyncio.run(_write_long_conversation(history))
        if arguments.rounds:
            _warm_up(Path(folder))
        for _ in range(arguments.rounds):
            with ChatServer() as server, _command(server.url, Path(folder)) as chat:
                samples["first paint of mm35 chat (s)"].append(chat.seconds_to(b"all keys"))
            with ChatServer() as server, _chat(server.url) as chat:
                samples["first paint (s)"].append(chat.seconds_to(b"all keys"))
                samples["connected (s)"].append(chat.seconds_to(b"ready"))
            with _on_terminal([sys.executable, "-c", _EMPTY]) as empty:
                samples["first paint of an empty Textual application (s)"].append(empty.seconds_to(b"all keys"))
            with ChatServer() as server:
                samples[f"open {_LONG} messages (s)"].append(_open_long(server.url, history))
        with ChatServer() as server, _chat(server.url) as chat:
            chat.seconds_to(b"ready")
            chat.watch(2.0)
            samples["idle CPU (% of a core)"].append(chat.watch(arguments.idle).cpu_percent)
        for what, value in _stream(60 * arguments.minutes, Path(folder) / "streamed.sqlite3"):
            samples[what].append(value)
    report(arguments.name, "", samples)


def _stream(seconds: float, history: Path) -> Iterator[tuple[str, float]]:
    """Answers of 1,000 tokens without a pause between them, as in a long conversation."""
    each = _ANSWER_TOKENS / TOKENS_PER_SECOND
    with ChatServer(ChatScript(scripts=[_answer()])) as server, _chat(server.url, history) as chat:
        chat.seconds_to(b"ready")
        num_waiting = 3
        for _ in range(num_waiting):
            chat.write(b"go\r")
        chat.watch(each)
        usages, sizes = [], []
        for _ in range(max(4, round(seconds / each))):
            chat.write(b"go\r")
            usages.append(chat.watch(each))
            sizes.append(chat.rss_bytes / (1 << 20))
        gaps = sorted(gap for usage in usages for gap in usage.gaps)
        yield f"streaming {TOKENS_PER_SECOND} tok/s: CPU (% of a core)", mean(u.cpu_percent for u in usages)
        yield "streaming: repaints per second", sum(len(u.gaps) for u in usages) / (len(usages) * each)
        yield "streaming: 99 of 100 repaints come within (s)", gaps[len(gaps) * 99 // 100]
        yield "streaming: minutes", len(sizes) * each / 60
        yield "streaming: memory at the end (MiB)", sizes[-1]
        yield "streaming: growth of memory over the second half (MiB per minute)", _growth(sizes) / each * 60


def _growth(sizes: list[float]) -> float:
    """A step of the second half: the mean of its second part less that of its first."""
    quarter = len(sizes) // 4
    return (mean(sizes[-quarter:]) - mean(sizes[-2 * quarter : -quarter])) / quarter


def _answer() -> Script:
    """Words at the recorded rate, in the bursts of a socket: ten a packet."""
    steps: list[Say | Pause] = []
    for number in range(_ANSWER_TOKENS):
        if number % 10 == 0:
            steps.append(Pause(10 / TOKENS_PER_SECOND))
        steps.append(Say(_WORDS[number % len(_WORDS)] + " "))
    return steps


async def _write_long_conversation(path: Path) -> None:
    history = History(path)
    await history.open()
    number = await history.start_conversation("long", "m")
    text = "Some **Markdown** with a list:\n\n- one\n- two\n\n```python\nx = 1\n```\n"
    messages = as_path(Message((Role.USER, Role.ASSISTANT)[i % 2], f"{i}: {text}") for i in range(_LONG))
    await history.add_tree(number, messages)
    await history.close()


def _open_long(url: str, history: Path) -> float:
    """From the key in the list to the last message on the screen, by the application's own clock."""
    program = (
        "import asyncio, sys, time\n"
        "from pathlib import Path\n"
        "from mm35local.tui.app import ChatApp\n"
        "from mm35local.tui.options import ChatOptions\n"
        "from mm35local.tui.widgets.question import Question\n"
        "async def main():\n"
        "    app = ChatApp(ChatOptions(sys.argv[1], history_path=Path(sys.argv[2])))\n"
        "    async with app.run_test(size=(120, 40)) as pilot:\n"
        "        await pilot.pause(1.0)\n"
        "        latest = await app.session.history.latest()\n"
        "        start = time.perf_counter()\n"
        "        await app.session.resume(latest)\n"
        "        await app.screen.show_conversation()\n"
        "        await pilot.pause()\n"
        "        print(time.perf_counter() - start)\n"
        "        assert app.screen.query(Question)\n"
        "    await app.aclose()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, url, str(history)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


class Usage:
    """What the chat used over a while."""

    def __init__(self, cpu_seconds: float, seconds: float, gaps: list[float]) -> None:
        self.cpu_percent = 100 * cpu_seconds / seconds
        self.gaps = gaps
        """Seconds before each repaint."""


class Chat:
    """A chat on a pseudo terminal, and what it draws there."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int, started_at: float) -> None:
        self._process = psutil.Process(process.pid)
        self._terminal = terminal
        self._started_at = started_at

    def seconds_to(self, text: bytes, limit: float = 60.0) -> float:
        """From the start of the process until `text` is on the screen."""
        drawn = b""
        while time.monotonic() - self._started_at < limit:
            drawn += self._read(0.05)
            if text in re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", drawn):
                return time.monotonic() - self._started_at
        raise TimeoutError(f"{text!r} was not drawn in {limit} s")

    def watch(self, seconds: float) -> Usage:
        before, start, gaps = self._cpu_seconds(), time.monotonic(), []
        last, rest = start, b""
        while (left := start + seconds - time.monotonic()) > 0:
            drawn = rest + self._read(min(left, 1.0))
            for _ in range(drawn.count(_BEGINS_FRAME)):
                now = time.monotonic()
                gaps.append(now - last)
                last = now
            # A mark may come in two pieces.
            rest = drawn.rpartition(_BEGINS_FRAME)[2][1 - len(_BEGINS_FRAME) :]
        return Usage(self._cpu_seconds() - before, time.monotonic() - start, gaps)

    def write(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    @property
    def rss_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _read(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        drawn = os.read(self._terminal, 1 << 16) if ready else b""
        if _ASKS_FOR_SYNC in drawn:
            self.write(_HAS_SYNC)
        return drawn


_EMPTY = (
    "from textual.app import App\n"
    "from textual.widgets import Static\n"
    "class Empty(App[None]):\n"
    "    def compose(self):\n"
    "        yield Static('all keys')\n"
    "Empty().run()\n"
)
"""What a machine takes for the library alone."""


def _chat(url: str, history: Path | None = None) -> AbstractContextManager[Chat]:
    program = (
        "import sys; from pathlib import Path; from mm35local.tui.app import run_chat;"
        " from mm35local.tui.options import ChatOptions;"
        " run_chat(ChatOptions(sys.argv[1], history_path=Path(sys.argv[2]) if sys.argv[2] else None))"
    )
    return _on_terminal([sys.executable, "-c", program, url, str(history or "")])


def _command(url: str, home: Path) -> AbstractContextManager[Chat]:
    """What a person types, with the command line and the settings before the chat, in a home of its own."""
    home_variables = {name: str(home) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    return _on_terminal([str(Path(sys.executable).with_name("mm35")), "chat", "--url", url], home_variables)


def _warm_up(home: Path) -> None:
    """The first start after a change of the sources compiles them."""
    with ChatServer() as server, _command(server.url, home) as chat:
        chat.seconds_to(b"ready")


@contextmanager
def _on_terminal(command: list[str], variables: Mapping[str, str] | None = None) -> Iterator[Chat]:
    terminal, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(variables or {})}
    # Where this is set, every start compiles what has changed since somebody wrote bytecode.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.monotonic()
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        try:
            yield Chat(process, terminal, start)
        finally:
            process.kill()
            os.close(terminal)


if __name__ == "__main__":
    main()
