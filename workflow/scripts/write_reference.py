"""Write the reference pages of the documentation again: `make docs`.

After the schema of the configuration or a docstring of the library has changed.
"""

from pathlib import Path

from refusal.reference import reference_texts


def main(root: Path) -> None:
    for name, text in reference_texts(root).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {name}")


if __name__ == "__main__":
    main(Path(__file__).parents[2])
