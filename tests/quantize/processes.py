"""Converters as processes that may be killed, forked from one that has the libraries loaded.

A test run has one such server, whoever asks for it first, so all its users preload the same. ggml quantises in them: a
process that lives for a tenth of a second lives on what is tested, not on compiling. Our kernels make the references.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.context import ForkServerProcess
from typing import Self

_PRELOAD = ["tests.quantize.by_ggml", "tests.quantize.consuming", "llama_cpp"]


class Processes:
    """Starts them, and leaves none behind."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOAD)
        self._stack = ExitStack()

    def start(self, function: Callable[..., object], *arguments: object, **options: object) -> ForkServerProcess:
        process = self._context.Process(target=function, args=arguments, kwargs=options)
        process.start()
        self._stack.callback(_end, process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stack.close()


def _end(process: ForkServerProcess) -> None:
    process.kill()
    process.join()
    process.close()
