"""Name and licence out of a README.md, and the file names made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantize.model_card import ModelCard, read_model_card


def test_heading_and_front_matter(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: 'modified-mit'\nlicense_link: LICENSE\n# no: heading\n---\n\n"
        "text\n\n# Mistral Medium 3.5 128B  \n\n# Other\n"
    )
    card = read_model_card(tmp_path)
    assert card == ModelCard("Mistral Medium 3.5 128B", "other", "modified-mit", "LICENSE")
    assert card.slug == "Mistral-Medium-3.5-128B"


def test_without_a_card_the_folder_gives_the_name(tmp_path: Path) -> None:
    plain = tmp_path / "My-Model"
    hub = tmp_path / "models--mistralai--Mistral-Medium-3.5-128B" / "snapshots" / "0123abc"
    for folder in (plain, hub):
        folder.mkdir(parents=True)
    assert read_model_card(plain).name == "My-Model"
    found = read_model_card(hub)
    assert (found.name, found.repo) == ("Mistral-Medium-3.5-128B", "mistralai/Mistral-Medium-3.5-128B")
    assert (found.revision, read_model_card(plain).repo) == ("0123abc", "")


@pytest.mark.parametrize(
    ("name", "slug"),
    [("../../etc/passwd", "etc-passwd"), ("???", "model"), ("a/b\0c", "a-b-c"), ("ü", "model"), ("x" * 300, "x" * 100)],
)
def test_no_name_leads_out_of_the_folder(name: str, slug: str) -> None:
    assert ModelCard(name).slug == slug
