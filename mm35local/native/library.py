"""llama.cpp as a library of this process: started once, its log caught.

Invariant: while a `Library` is open, every line that llama.cpp logs goes to its sink, and the last errors are kept,
so that a failure can be explained in llama.cpp's own words.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Callable

from llama_cpp import llama_cpp

LogSink = Callable[[str], None]

_INFO, _ERROR, _CONTINUED = 2, 4, 5
_SOURCE = re.compile(r"^[\w:~]+: (error loading model: )?")
_GENERIC = re.compile(r"failed to load model")


class Library:
    """Starts the backends and owns the log callback. One at a time: llama.cpp's logger is global."""

    def __init__(self, sink: LogSink, num_kept_errors: int = 8) -> None:
        """`sink` gets whole lines without the newline, debug lines excepted, from whichever thread logs."""
        self._sink = sink
        self._errors: deque[str] = deque(maxlen=num_kept_errors)
        self._level = _INFO
        self._partial = ""
        self._callback = llama_cpp.llama_log_callback(self._on_log)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()

    def forget_errors(self) -> None:
        self._errors.clear()

    def reason(self) -> str:
        """What llama.cpp said went wrong since `forget_errors`, without its function names; "" if nothing."""
        causes = [_SOURCE.sub("", line) for line in self._errors]
        told = [cause for cause in causes if not _GENERIC.search(cause)] or causes
        return "; ".join(dict.fromkeys(told))

    def listen_to(self, set_log: Callable[[object, object], None]) -> None:
        """Take the log of a library beside llama.cpp, which `set_log` directs."""
        set_log(self._callback, ctypes.c_void_p(0))

    def close(self) -> None:
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))

    def _on_log(self, level: int, text: bytes, _user_data: object) -> None:
        if level != _CONTINUED:
            self._level = level
        self._partial += text.decode("utf-8", "replace")
        *lines, self._partial = self._partial.split("\n")
        for line in filter(str.strip, lines):
            if self._level >= _ERROR:
                self._errors.append(line)
            if self._level >= _INFO:
                self._sink(line)


def version() -> str:
    """llama.cpp's version and the CPU features it was built for, in one line."""
    system: bytes = llama_cpp.llama_print_system_info()
    name: bytes = llama_cpp.llama_version()
    return f"llama.cpp {name.decode()} ({system.decode().strip(' |')})"
