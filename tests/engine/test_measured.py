from __future__ import annotations

from mm35local.engine.measured import Measured, bytes_on_cards, compare

MIB = 1 << 20


def test_on_the_cpu_all_of_the_hosts_buffers_count() -> None:
    buffers = [("CPU_Mapped", "model", 96 * MIB), ("CPU_REPACK", "model", 102 * MIB), ("CPU", "compute", 50 * MIB)]
    model, compute = compare([("model", 100 * MIB), ("compute", 40 * MIB)], buffers)
    assert (model.allocated_bytes, model.is_off) == (102 * MIB, False)
    assert str(model) == "memory: model buffers take 102.00 MiB, planned 100.00 (+2.0%)"
    assert (compute.allocated_bytes, compute.is_off) == (50 * MIB, True)
    assert str(compute).startswith("WARNING: memory: compute buffers take 50.00 MiB, planned 40.00 (+25.0%)")


def test_what_is_mapped_counts_as_far_as_it_was_not_copied() -> None:
    for mapped, copied, planned, allocated in (
        (34, 82, 116, 116),
        (28, 34, 45, 45),
        (28, 34, 90, 62),
        (28, 34, 20, 34),
    ):
        buffers = [("CPU_Mapped", "model", mapped * MIB), ("AMX", "model", copied * MIB)]
        [model] = compare([("model", planned * MIB)], buffers)
        assert model.allocated_bytes == allocated * MIB


def test_with_cards_the_host_does_not_count() -> None:
    buffers = [
        ("CPU_Mapped", "model", 900 * MIB),
        ("CUDA0", "model", 40 * MIB),
        ("CUDA1", "model", 41 * MIB),
        ("CUDA_Host", "compute", 30 * MIB),
        ("CUDA0", "compute", 5 * MIB),
    ]
    assert compare([("model", 80 * MIB), ("compute", 5 * MIB)], buffers) == [
        Measured("model", 80 * MIB, 81 * MIB),
        Measured("compute", 5 * MIB, 5 * MIB),
    ]
    assert bytes_on_cards(buffers) == {"CUDA0": 45 * MIB, "CUDA1": 41 * MIB}


def test_the_logs_rounding_is_no_error() -> None:
    assert not Measured("KV", 0, MIB // 100).is_off
    assert not Measured("KV", 100, 5000).is_off
    assert Measured("KV", 0, MIB).is_off
