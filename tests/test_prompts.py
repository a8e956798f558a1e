"""Prompt tables: a user's files are read alike, and every mistake gets one clear line."""

import pandas as pd
import pytest

from refusal.errors import InputError
from refusal.prompts import (
    COLUMNS,
    grammar_prompts,
    read_prompts,
    sample_prompts,
    validate_prompts,
)

SIZES = {"train": 8, "validation": 4, "test": 8, "text": 6, "capability": 10} | {
    "kinds": {"train": 4, "validation": 2, "test": 3}
}


def user_frame() -> pd.DataFrame:
    rows = [
        {"text": f"{label} request {split} {index}", "label": label, "split": split}
        for label in ("harmful", "harmless")
        for split in ("train", "validation", "test")
        for index in range(2)
    ]
    return pd.DataFrame(rows)


def write(frame: pd.DataFrame, path) -> None:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_file_format_gives_the_same_table(tmp_path, suffix):
    frame = user_frame()
    path = tmp_path / f"prompts{suffix}"
    write(frame, path)
    table = read_prompts(path)
    assert tuple(table.columns) == COLUMNS
    assert table["text"].tolist() == frame["text"].tolist()
    assert table["id"].tolist()[:3] == [
        "harmful-train-0000",
        "harmful-train-0001",
        "harmful-validation-0000",
    ]
    assert table["answer"].isna().all() and table["keywords"].isna().all()
    assert set(table["source"]) == {"user"}
    assert table["kind"].tolist() == table["label"].tolist()


def test_optional_columns_are_kept_and_keywords_of_csv_are_split(tmp_path):
    frame = user_frame().assign(keywords="", answer="", kind="", id="")
    frame.loc[0, ["keywords", "answer", "kind", "id"]] = ["bake; lemon cake", "Sure.", "food", "a7"]
    path = tmp_path / "prompts.csv"
    frame.to_csv(path, index=False)
    table = read_prompts(path)
    first = table.iloc[0]
    assert first["keywords"] == ["bake", "lemon cake"]
    assert (first["answer"], first["kind"], first["id"]) == ("Sure.", "food", "a7")
    assert table.iloc[1]["keywords"] is None and table.iloc[1]["id"] == "harmful-train-0001"


def test_text_that_looks_like_a_missing_value_stays_text(tmp_path):
    frame = user_frame()
    frame.loc[0, "text"] = "NA"
    path = tmp_path / "prompts.csv"
    frame.to_csv(path, index=False)
    assert read_prompts(path).loc[0, "text"] == "NA"


def set_cell(row: int, column: str, value: object):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        frame.loc[row, column] = value
        return frame

    return change


MISTAKES = {
    "missing column": (lambda f: f.drop(columns="split"), "column 'split' is missing"),
    "empty text": (set_cell(3, "text", "  "), "row 4: text is empty"),
    "duplicate": (set_cell(5, "text", "harmful request train 1"), "row 6: the text repeats.*row 2"),
    "unknown label": (set_cell(2, "label", "evil"), "row 3: unknown label 'evil'.*harmful"),
    "unknown split": (set_cell(1, "split", "dev"), "row 2: unknown split 'dev'.*validation"),
    "empty class": (
        lambda f: f[~((f.label == "harmless") & (f.split == "validation"))],
        "no harmless prompt with split 'validation'",
    ),
    "no rows": (lambda f: f.iloc[:0], "no harmful prompt with split 'train'"),
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line_with_the_file(tmp_path, mistake, suffix):
    change, message = MISTAKES[mistake]
    if mistake == "no rows" and suffix == ".jsonl":
        pytest.skip("an empty JSON lines file has no columns at all")
    path = tmp_path / f"prompts{suffix}"
    write(change(user_frame()), path)
    with pytest.raises(InputError, match=message) as error:
        read_prompts(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_null_text_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write(set_cell(0, "text", None)(user_frame()), path)
    with pytest.raises(InputError, match="row 1: text is empty"):
        read_prompts(path)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_prompts(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="unknown kind of file"):
        read_prompts(tmp_path / "prompts.xlsx")
    for suffix in (".jsonl", ".parquet"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_text('{"text": ')
        with pytest.raises(InputError, match="cannot be read"):
            read_prompts(broken)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(tmp_path / "empty.csv")


def test_duplicate_ids_are_refused():
    table = grammar_prompts(SIZES, seed=0)
    table.loc[1, "id"] = table.loc[0, "id"]
    with pytest.raises(InputError, match="prompts: row 2: the id repeats that of row 1"):
        validate_prompts(table, "prompts")


def test_grammar_prompts_are_valid_and_survive_parquet(tmp_path):
    table = grammar_prompts(SIZES, seed=3)
    validate_prompts(table, "grammar")
    path = tmp_path / "prompts.parquet"
    table.to_parquet(path)
    again = read_prompts(path)
    assert again["text"].tolist() == table["text"].tolist()
    assert (
        again["keywords"].tolist()
        == table["keywords"].map(lambda words: words if isinstance(words, list) else None).tolist()
    )


def test_a_user_s_prompts_of_the_other_kinds_are_sampled_by_kind():
    table = grammar_prompts(SIZES, seed=3)
    kinds = {"train": 2, "validation": 1, "test": 3}
    sampled = sample_prompts(table, SIZES | {"train": 5, "kinds": kinds}, seed=0)
    validate_prompts(sampled, "sampled")
    counts = sampled.groupby(["label", "split", "kind"]).size()
    for side in ("noncompliant", "contrast"):
        for split, size in kinds.items():
            assert counts[side, split].tolist() == [size] * 11
    assert (sampled.query("split == 'train'").label == "harmful").sum() == 5
