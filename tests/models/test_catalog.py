from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.errors import UnknownModel, UsageError
from mm35local.models.catalog import Catalog, load_catalog

ABSENT = Path("/nonexistent/models.toml")


@pytest.fixture
def catalog() -> Catalog:
    return load_catalog(ABSENT)


def test_the_shipped_catalog(catalog: Catalog) -> None:
    assert [model_id for model_id, _ in catalog.best_first()] == [
        "mistral-medium-3.5",
        "ministral-3-3b",
        "smollm2-135m",
    ]
    medium = catalog.entry("mistral-medium-3.5")
    assert medium.n_ctx_train == 262144
    assert medium.kv_bytes_per_token["f16"] == 2 * 88 * 8 * 128 * 2
    assert medium.kv_bytes_per_token["q8_0"] == 2 * 88 * 8 * 128 * 34 // 32
    assert (medium.sampling["high"].temperature, medium.sampling["high"].top_p) == (0.7, 0.95)
    assert medium.smallest.quant == "IQ4_XS"


def test_kv_bytes_are_consistent(catalog: Catalog) -> None:
    per_block = {"f16": 64, "q8_0": 34, "q5_1": 24, "q4_0": 18}
    for _, entry in catalog.best_first():
        unit = entry.kv_bytes_per_token["f16"] // per_block["f16"]
        assert entry.kv_bytes_per_token == {kind: unit * per_block[kind] for kind in entry.kv_bytes_per_token}


def test_a_quant_in_any_case(catalog: Catalog) -> None:
    assert catalog.entry("mistral-medium-3.5").variant("q4_k_m").quant == "Q4_K_M"
    with pytest.raises(UsageError, match="no variant 'Q3'"):
        catalog.entry("mistral-medium-3.5").variant("Q3")


def test_an_unknown_model_lists_the_known(catalog: Catalog) -> None:
    with pytest.raises(UnknownModel) as caught:
        catalog.entry("gpt-5")
    assert "smollm2-135m" in caught.value.hint


def test_the_users_file_is_read_on_top(tmp_path: Path) -> None:
    mine = tmp_path / "models.toml"
    mine.write_text(
        "[models.smollm2-135m]\nrank = 500\n"
        "[models.mine]\ntitle='Mine'\nsource='me/mine'\nlicence='MIT'\nrank=2\nn_ctx_train=4096\n"
        "kv_bytes_per_token={f16=64}\nsampling.none={temperature=0.5, top_p=1.0}\n"
        "[[models.mine.variants]]\nquant='Q8_0'\nbytes=10\nfile='mine.gguf'\norigin={kind='hub', repo='me/mine'}\n"
    )
    catalog = load_catalog(mine)
    assert next(catalog.best_first())[0] == "smollm2-135m"
    assert catalog.entry("smollm2-135m").title == "SmolLM2-135M"
    assert catalog.entry("mine").variants[0].file == "mine.gguf"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[models", "Expected ']'"),
        ("models = 3", "expected tables"),
        ("[models.x]\nrank = 1", "models.x.title: Field required"),
        ("[models.smollm2-135m]\nrank = 'high'", "models.smollm2-135m.rank"),
        ("[models.smollm2-135m]\ncolour = 'red'", "models.smollm2-135m.colour"),
        ("[models.smollm2-135m]\nvariants = []", "models.smollm2-135m.variants"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, content: str, problem: str) -> None:
    mine = tmp_path / "models.toml"
    mine.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_catalog(mine)
    assert problem in str(caught.value)
    assert str(mine) in caught.value.hint + str(caught.value)
