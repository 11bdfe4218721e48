"""Serving, side by side with peers: `python -m bench.serve --model FILE [--llama-server PATH] [--workload NAME ...]`.

Every round runs each contender in turn on the same requests, each in a process of its own on loopback; `serve_table`
has medians over the rounds and the ratio to llama-server. Only the client and the file system's cache are warmed up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from bench import workloads
from bench.contenders import Contender, Setting, find_llama_server, llama_cpp_server, llama_server, mm35
from bench.results_file import RESULTS, machine
from bench.serve_table import print_table
from bench.streams import open_client
from bench.workloads import Figures, Workload

Samples = dict[tuple[str, str], dict[str, dict[int, float]]]
"""(workload, figure) to contender to round to value."""

WORKLOADS: Mapping[str, Workload] = {
    "1 stream": workloads.streams(1),
    "4 streams": workloads.streams(4),
    "16 streams": workloads.streams(16),
    "16 streams, shared prefix": workloads.shared_prefix,
    "three agents, 12 turns": workloads.agents,
    "long prompt beside 4": workloads.long_prompt_beside,
    "4 streams, free text": workloads.json_schema(is_constrained=False),
    "4 streams, JSON schema": workloads.json_schema(is_constrained=True),
}
RESTART = "known prefix after a restart"
_ONE_AT_A_TIME = ("1 stream", "three agents, 12 turns", RESTART)
"""llama_cpp.server interrupts one answer for the next, so nothing else can be asked of it."""


def main() -> None:
    arguments = _arguments().parse_args()
    setting = Setting(arguments.model, arguments.threads)
    names = arguments.workload or [*WORKLOADS, RESTART]
    samples: Samples = defaultdict(lambda: defaultdict(dict))
    with tempfile.TemporaryDirectory() as cache:
        contenders = _contenders(setting, Path(cache), arguments)
        for number in range(arguments.rounds):
            for name in names:
                for contender in contenders if number % 2 == 0 else contenders[::-1]:
                    _try(samples, name, contender, number)
    _report(arguments.name, setting, arguments.rounds, samples)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-server", default=find_llama_server(), metavar="PATH")
    parser.add_argument(
        "--llama-server-option", action="append", default=[], help="e.g. --llama-server-option=--no-repack"
    )
    parser.add_argument("--llama-cpp-python", metavar="PYTHON", help="a Python that has llama-cpp-python[server]")
    parser.add_argument("--workload", action="append", choices=[*WORKLOADS, RESTART])
    parser.add_argument("--name", default="serve", help="results go to bench/results/NAME.json")
    return parser


def _contenders(setting: Setting, cache: Path, arguments: argparse.Namespace) -> list[Contender]:
    found = [mm35(setting, cache)]
    if arguments.llama_server:
        found.append(llama_server(setting, arguments.llama_server, *arguments.llama_server_option))
    if arguments.llama_cpp_python:
        found.append(llama_cpp_server(setting, arguments.llama_cpp_python))
    return found


def _try(samples: Samples, name: str, contender: Contender, number: int) -> None:
    """Round `number`. One contender's failure is told, and does not take the others' figures with it."""
    try:
        _book(samples, name, contender, number, _measure(name, contender, number))
    except (ValueError, RuntimeError, httpx.HTTPError) as error:
        print(f"{contender.name}: {name}: FAILED: {error}", flush=True)


def _measure(name: str, contender: Contender, seed: int) -> Figures | None:
    """None: this contender cannot be asked this."""
    if contender.name == "llama_cpp.server" and name not in _ONE_AT_A_TIME:
        return None
    if name == RESTART:
        return _restart(contender, seed)
    with contender.serving() as url:
        return asyncio.run(_run(WORKLOADS[name], url, seed))


def _restart(contender: Contender, seed: int) -> Figures:
    """Time to first token of a prompt, cold and again after the server was ended and started."""
    with contender.serving() as url:
        cold = asyncio.run(_run(workloads.first_token_of_known_prefix, url, seed))
    with contender.serving() as url:
        again = asyncio.run(_run(workloads.first_token_of_known_prefix, url, seed))
    ratio = again["TTFT s"] / cold["TTFT s"]
    return {"cold TTFT s": cold["TTFT s"], "TTFT s": again["TTFT s"], "TTFT / cold": ratio}


async def _run(workload: Workload, url: str, seed: int) -> Figures:
    async with open_client(url) as client:
        await client.get("/v1/models")  # httpx loads modules with its first request: 25 ms that are no server's
        return await workload(client, seed)


def _book(samples: Samples, name: str, contender: Contender, number: int, figures: Figures | None) -> None:
    for figure, value in (figures or {}).items():
        samples[name, figure][contender.name][number] = value
        print(f"{contender.name}: {name}: {figure} {value:.4g}", flush=True)


def _report(name: str, setting: Setting, num_rounds: int, samples: Samples) -> None:
    """Into the results file, and on the terminal."""
    rows = [
        {
            "workload": workload,
            "figure": figure,
            "date": machine()["date"],
            "samples": {who: [by_round.get(n) for n in range(num_rounds)] for who, by_round in by_contender.items()},
        }
        for (workload, figure), by_contender in samples.items()
    ]
    head = {"model": setting.model.name, "threads": setting.threads, "machine": machine()}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**head, "rows": [*_other_rows(path, setting, rows), *rows]}, indent=2) + "\n")
    print_table({**head, "rows": rows})


def _other_rows(path: Path, setting: Setting, rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """What the file says of workloads that were not run now, on the same model with as many threads of this machine."""
    if not path.exists():
        return []
    known = json.loads(path.read_text())
    here = {**machine(), "date": known["machine"]["date"]}
    if (known["model"], known["threads"], known["machine"]) != (setting.model.name, setting.threads, here):
        return []
    fresh = {row["workload"] for row in rows}
    return [row for row in known["rows"] if row["workload"] not in fresh]


if __name__ == "__main__":
    main()
