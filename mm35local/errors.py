"""Every error a user can meet, each carrying its facts.

Mm35Error                      message (what was expected, what was found) and hint (what to do)
├── UsageError                 the command line or the settings ask for something impossible
├── ModelError
│   ├── UnknownModel           no such entry in the catalog and no such file
│   ├── ModelFileError         a GGUF that is missing, cut short or no GGUF: path, offset
│   ├── DownloadError          a model could not be fetched
│   └── DoesNotFit             needed_bytes, free_bytes
├── GpuLost                    a card that the driver lists does not answer: index
├── CheckpointError            a source checkpoint that cannot be converted: file, tensor
├── ConversionError            an output that cannot be written
├── HistoryError               the chat's history file cannot be used: path, problem
├── RequestError               one request is wrong: field
│   └── ContextLengthExceeded  num_prompt_tokens, num_max_tokens, n_ctx
├── RpcError                   another machine's worker is missing, busy or of another version: endpoint
├── EngineError
│   ├── EngineLoading          not ready yet: progress in 0..1
│   ├── EngineOverloaded       the queue is full: limit
│   ├── EngineClosing          no more requests are taken
│   ├── LoadFailed             llama.cpp refused the model: detail
│   ├── DecodeFailed           llama.cpp refused a batch: code
│   │   ├── ImageFailed        the vision tower refused an image: detail
│   │   └── GrammarFailed      the answer could not follow its grammar any more: detail
│   └── WorkerDied             the engine's process ended: exit_code
│       └── EngineGivenUp      and is not started again: num_deaths
└── ServerError
    ├── PortInUse              host, port
    └── ServerUnreachable      url

Errors cross the process boundary by pickle, which calls the class with its positional arguments again:
construct them positionally and keep `__init__` free of side effects.
"""

from __future__ import annotations

GIB = 1 << 30


class Mm35Error(Exception):
    """Base of all: `message` says what is wrong, `hint` what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(Mm35Error):
    pass


class ModelError(Mm35Error):
    pass


class UnknownModel(ModelError):
    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"no model or file named {name!r}",
            f"known models: {', '.join(known)}; or give the path of a .gguf file",
        )
        self.name = name
        self.known = known


class ModelFileError(ModelError):
    def __init__(self, path: str, problem: str, hint: str = "", offset: int | None = None) -> None:
        where = path if offset is None else f"{path} at byte {offset}"
        super().__init__(f"{where}: {problem}", hint or "download or convert the file again")
        self.path = path
        self.problem = problem
        self.offset = offset


class DownloadError(ModelError):
    pass


class DoesNotFit(ModelError):
    def __init__(self, what: str, needed_bytes: int, free_bytes: int, hint: str = "") -> None:
        super().__init__(
            f"{what} needs {needed_bytes / GIB:.1f} GiB, {free_bytes / GIB:.1f} GiB is free",
            hint or "choose a smaller quant, a shorter --ctx, or another model",
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class GpuLost(Mm35Error):
    def __init__(self, index: int, num_gpus: int, detail: str) -> None:
        super().__init__(
            f"GPU {index} of {num_gpus} does not answer: {detail}",
            "look at nvidia-smi and the kernel's log; CUDA_VISIBLE_DEVICES=... leaves a card out, --cpu all of them",
        )
        self.index = index
        self.num_gpus = num_gpus
        self.detail = detail


class CheckpointError(Mm35Error):
    def __init__(self, file: str, problem: str, hint: str = "", tensor: str | None = None) -> None:
        where = file if tensor is None else f"{file}, tensor {tensor}"
        super().__init__(f"{where}: {problem}", hint or "download the checkpoint again")
        self.file = file
        self.problem = problem
        self.tensor = tensor


class ConversionError(Mm35Error):
    pass


class HistoryError(Mm35Error):
    def __init__(self, path: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{path}: {problem}", hint or "move the file away to start a new history")
        self.path = path
        self.problem = problem


class RequestError(Mm35Error):
    """A request that can never succeed as sent; `field` is its name on the wire, `code` for programs."""

    def __init__(self, message: str, field: str | None = None, code: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint)
        self.field = field
        self.code = code


class ContextLengthExceeded(RequestError):
    """Its first words are OpenAI's: agents know the error by them and shorten the conversation."""

    def __init__(self, num_prompt_tokens: int, num_max_tokens: int, n_ctx: int, is_least: bool = False) -> None:
        """`is_least`: the prompt may have more."""
        wanted = f" and max_tokens asks for {num_max_tokens} more" if num_max_tokens else ""
        found = f"{'at least ' if is_least else ''}{num_prompt_tokens}{wanted}"
        super().__init__(
            f"this model's maximum context length is {n_ctx} tokens here: the prompt has {found}",
            "max_tokens" if num_max_tokens and num_prompt_tokens < n_ctx else "messages",
            "context_length_exceeded",
            "shorten the conversation, lower max_tokens, or start the server with a larger --ctx",
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.num_max_tokens = num_max_tokens
        self.n_ctx = n_ctx


class RpcError(Mm35Error):
    def __init__(self, endpoint: str, problem: str, hint: str = "") -> None:
        super().__init__(
            f"the RPC worker {endpoint} {problem}", hint or "start it there: mm35 rpc-worker; or leave --rpc out"
        )
        self.endpoint = endpoint
        self.problem = problem


class EngineError(Mm35Error):
    pass


class EngineLoading(EngineError):
    def __init__(self, progress: float) -> None:
        super().__init__(f"the model is loading ({progress:.0%})", "try again in a moment; /health shows the progress")
        self.progress = progress


class EngineClosing(EngineError):
    def __init__(self, message: str = "the server is shutting down") -> None:
        super().__init__(message, "send the request again when it is back")


class EngineOverloaded(EngineError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} requests are waiting already", "try again in a moment")
        self.limit = limit


class LoadFailed(EngineError):
    def __init__(self, path: str, detail: str, hint: str = "") -> None:
        super().__init__(
            f"llama.cpp could not load {path}: {detail}",
            hint or "download or convert the file again; engine.log has llama.cpp's own words",
        )
        self.path = path
        self.detail = detail

    @property
    def is_memory_short(self) -> bool:
        """Would less context, or a smaller batch, have loaded?"""
        return any(word in self.detail for word in ("alloc", "memory"))


class DecodeFailed(EngineError):
    def __init__(self, code: int) -> None:
        super().__init__(f"llama.cpp could not compute a batch (code {code})", "send the request again")
        self.code = code


class ImageFailed(DecodeFailed):
    def __init__(self, detail: str) -> None:
        EngineError.__init__(self, f"the image could not be read: {detail}", "send it in another size")
        self.code = 0
        self.detail = detail


class GrammarFailed(DecodeFailed):
    def __init__(self, detail: str) -> None:
        EngineError.__init__(self, f"the answer cannot follow its grammar: {detail}", "use a simpler schema or grammar")
        self.code = 0
        self.detail = detail


class WorkerDied(EngineError):
    def __init__(self, exit_code: int | None, detail: str = "") -> None:
        how = "ended" if exit_code is None else f"ended with code {exit_code}"
        super().__init__(
            f"the engine's process {how}{': ' + detail if detail else ''}",
            "it restarts by itself; send the request again",
        )
        self.exit_code = exit_code
        self.detail = detail


class EngineGivenUp(WorkerDied):
    def __init__(self, exit_code: int | None, detail: str, num_deaths: int) -> None:
        super().__init__(exit_code, detail)
        self.message += f"; it ended {num_deaths} times in a row and is not started again"
        self.hint = "read engine.log, and start the server again"
        self.num_deaths = num_deaths


class ServerError(Mm35Error):
    pass


class PortInUse(ServerError):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} on {host} is taken by another program", "choose another with --port")
        self.host = host
        self.port = port


class ServerUnreachable(ServerError):
    def __init__(self, url: str, detail: str) -> None:
        super().__init__(f"no server answers at {url}: {detail}", "start one with: mm35 serve")
        self.url = url
        self.detail = detail
