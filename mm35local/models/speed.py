"""Estimates, said as such: decode from memory bandwidth, prefill from matrix speed.

Decode reads every weight and every filled KV cell once a token; good kernels reach 85 % of the datasheet's bandwidth
(RTX PRO 6000, Q4_K_M: 20.4 tok/s published, 20.6 by this). Cards in a layer split work one after the other, in a
tensor split at once but with two sums over all cards a layer. Prefill counts 2 operations a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mm35local.models.gpus import Gpu
from mm35local.models.placement import Share

BANDWIDTH_EFFICIENCY = 0.85
RAM_BANDWIDTH = 40e9
"""Two channels of DDR4-3200 at 80 %: what a desktop gives; a server with more channels is faster."""
CPU_FLOPS = 0.5e12
"""For a CPU whose cores are not known."""
CORE_BANDWIDTH = 10e9
"""bytes/s of 4-bit blocks that one core unpacks and multiplies: SmolLM2 Q4_1 on one thread of a Sapphire Rapids class
Xeon makes 105-130 tok/s. Below 4 or 5 cores this, not the memory, is the limit."""
CORE_FLOPS = 35e9
"""One core in a batch, the same machine: llama-bench pp512 170-250 tok/s of 135M weights on two."""
LAYER_SECONDS = 25e-6
"""What each layer costs on the CPU however small it is: some 30 operations to begin and end."""
LINK_SECONDS = {True: 15e-6, False: 100e-6}
"""One sum over all cards, by whether NVLink joins them. PCIe: from 4 x 3080 at IQ4_XS (21.6 tok/s); NVLink: a guess."""
_NUM_MESSAGES = 3
_PREFILL_EFFICIENCY = 0.35
_WIDE_FLOPS, _WIDE_EFFICIENCY = 500e12, 0.15
"""Data-centre cards from Hopper on: llama.cpp's kernels do not use their widest matrix instructions."""


@dataclass(frozen=True, slots=True)
class CpuPart:
    """What the CPU does of one token: bytes read, layers, and the threads it has for it (0: not known)."""

    num_bytes: int = 0
    num_layers: int = 0
    num_threads: int = 0

    @property
    def seconds(self) -> float:
        """Bytes over the slower of memory and cores, and a constant a layer."""
        rate = RAM_BANDWIDTH * BANDWIDTH_EFFICIENCY
        if self.num_threads:
            rate = min(rate, self.num_threads * CORE_BANDWIDTH)
        return self.num_bytes / rate + self.num_layers * LAYER_SECONDS


def decode_tokens_per_second(
    shares: Sequence[Share],
    gpus: Sequence[Gpu],
    *,
    is_tensor_split: bool,
    cpu: CpuPart | None = None,
    kv_share: float = 0.0,
    row_bytes: int = 0,
) -> float:
    """Tokens/s of one stream with `kv_share` of the cells filled; 0 where a card's bandwidth is not known.

    `row_bytes` is one token's hidden state (n_embd x f32), which goes to a device over RPC and comes back.
    """
    if any(gpu.bandwidth <= 0 for gpu, share in zip(gpus, shares, strict=True) if share.split):
        return 0.0
    times = [
        (share.weight_bytes + share.kv_bytes * kv_share) / (gpu.bandwidth * BANDWIDTH_EFFICIENCY)
        for gpu, share in zip(gpus, shares, strict=True)
        if share.split
    ]
    seconds = (cpu.seconds if cpu else 0.0) + sum(
        link_seconds(gpu, row_bytes) for gpu, share in zip(gpus, shares, strict=True) if share.split
    )
    if is_tensor_split:
        num_sums = 2 * max(share.num_layers for share in shares)
        seconds += max(times) + num_sums * LINK_SECONDS[all(gpu.has_nvlink for gpu in gpus)]
    else:
        seconds += sum(times)
    return 1 / seconds if seconds else 0.0


def prefill_tokens_per_second(
    num_weights: int,
    shares: Sequence[Share],
    gpus: Sequence[Gpu],
    *,
    is_tensor_split: bool,
    cpu_share: float = 0.0,
    num_threads: int = 0,
    row_bytes: int = 0,
) -> float:
    """Tokens/s of a long prompt, roughly; 0 where a card's matrix speed is not known. One micro-batch at a time."""
    flops = 2.0 * num_weights
    if any(gpu.flops <= 0 for gpu, share in zip(gpus, shares, strict=True) if share.split):
        return 0.0
    on_gpus = max(1, sum(share.weight_bytes for share in shares))
    times = [
        flops * (1 - cpu_share) * share.weight_bytes / on_gpus / sustained_flops(gpu)
        for gpu, share in zip(gpus, shares, strict=True)
        if share.split
    ]
    rows = sum(2 * row_bytes / gpu.link.bandwidth for gpu in gpus if gpu.link and gpu.link.bandwidth)
    seconds = (
        rows
        + flops * cpu_share / (num_threads * CORE_FLOPS or CPU_FLOPS)
        + (max(times, default=0.0) if is_tensor_split else sum(times))
    )
    return 1 / seconds if seconds else 0.0


def link_seconds(gpu: Gpu, row_bytes: int) -> float:
    """What a token pays for the way to a device and back: three messages (state, graph, state), and the bytes."""
    if gpu.link is None:
        return 0.0
    transfer = 2 * row_bytes / gpu.link.bandwidth if gpu.link.bandwidth else 0.0
    return _NUM_MESSAGES * gpu.link.round_trip_seconds + transfer


def sustained_flops(gpu: Gpu) -> float:
    return gpu.flops * (_WIDE_EFFICIENCY if gpu.flops >= _WIDE_FLOPS else _PREFILL_EFFICIENCY)
