from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.errors import DoesNotFit, ModelFileError, UnknownModel
from mm35local.models.catalog import Catalog, Variant, load_catalog
from mm35local.models.gpus import Gpu, Machine
from mm35local.models.select import Locate, best_choice, named_choice

FOLDER = Path("models")
LAPTOP = Machine((), 22 << 30)
H100 = Machine((Gpu("H100", 80 << 30, 79 << 30),), 22 << 30)


@pytest.fixture
def catalog() -> Catalog:
    return load_catalog(Path("/nonexistent/models.toml"))


def here(*files: str) -> Locate:
    def locate(variant: Variant) -> Path | None:
        return FOLDER / variant.file if variant.file in files else None

    return locate


def test_a_laptop_gets_the_embedded_model_and_the_reason(catalog: Catalog) -> None:
    choice = best_choice(catalog, LAPTOP, here(), FOLDER)
    assert choice.model_id == "smollm2-135m"
    assert choice.path == FOLDER / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert choice.reason == (
        "Mistral Medium 3.5 needs 65 GiB of GPU memory or RAM; 22 GiB here: using SmolLM2-135M instead "
        "(better: mm35 pull ministral-3-3b)"
    )


def test_a_better_model_that_is_here_is_taken(catalog: Catalog) -> None:
    choice = best_choice(catalog, LAPTOP, here("Ministral-3-3B-Instruct-2512-Q4_K_M.gguf"), FOLDER)
    assert choice.model_id == "ministral-3-3b"
    assert choice.reason is not None
    assert choice.reason.endswith("using Ministral 3 3B instead")


def test_the_largest_variant_that_fits_is_taken(catalog: Catalog) -> None:
    files = [f"Mistral-Medium-3.5-128B-{quant}.gguf" for quant in ("IQ4_XS", "Q4_K_M", "Q5_K_M")]
    choice = best_choice(catalog, H100, here(*files), FOLDER)
    assert (choice.model_id, choice.variant and choice.variant.quant, choice.reason) == (
        "mistral-medium-3.5",
        "Q4_K_M",
        None,
    )


def test_a_best_model_that_fits_but_is_not_here_is_named(catalog: Catalog) -> None:
    choice = best_choice(catalog, H100, here(), FOLDER)
    assert choice.reason == (
        "Mistral Medium 3.5 fits here but its file is not here yet: using SmolLM2-135M instead "
        "(better: mm35 quantize mistralai/Mistral-Medium-3.5-128B --to IQ4_XS)"
    )


def test_cards_that_the_build_cannot_use_are_mentioned(catalog: Catalog) -> None:
    choice = best_choice(catalog, Machine((), 22 << 30, num_unusable_gpus=1), here(), FOLDER)
    assert "1 GPU unused: llama.cpp is built without CUDA" in (choice.reason or "")


def test_nothing_fits(catalog: Catalog) -> None:
    with pytest.raises(DoesNotFit):
        best_choice(catalog, Machine((), 100 << 20), here(), FOLDER)


def test_names_quants_and_paths(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "other.gguf"
    file.write_bytes(b"GGUF")
    assert named_choice("smollm2-135m", catalog, here(), FOLDER).path == FOLDER / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert named_choice("ministral-3-3b:q8_0", catalog, here(), FOLDER).path.name.endswith("Q8_0.gguf")
    assert named_choice(str(file), catalog, here(), FOLDER).model_id == "other"


def test_without_a_quant_the_largest_that_is_here(catalog: Catalog) -> None:
    choice = named_choice("ministral-3-3b", catalog, here("Ministral-3-3B-Instruct-2512-Q8_0.gguf"), FOLDER)
    assert choice.variant is not None
    assert choice.variant.quant == "Q8_0"


def test_a_file_with_a_catalog_name_keeps_its_defaults(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    file.write_bytes(b"GGUF")
    choice = named_choice(str(file), catalog, here(), FOLDER)
    assert (choice.model_id, choice.path) == ("smollm2-135m", file)


def test_what_is_not_there(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        named_choice("gpt-5", catalog, here(), FOLDER)
    with pytest.raises(ModelFileError, match="no such file"):
        named_choice(str(tmp_path / "absent.gguf"), catalog, here(), FOLDER)
