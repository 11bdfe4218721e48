"""`python -m tests.pocket OUT [--seed N]` writes OUT/hf and OUT/native."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.pocket.checkpoint import write_pocket


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.pocket", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write hf/ and native/ into")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for folder in write_pocket(arguments.out, arguments.seed):
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{folder}  {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
