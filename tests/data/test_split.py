from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from trimtab.data.corpora import Document
from trimtab.data.split import FEWEST_DOCUMENTS, choose_split

fractions = st.floats(0.01, 0.49)


def documents(num: int) -> list[Document]:
    return [Document(f"file-{i}", f"text {i}", f"file-{i}") for i in range(num)]


@given(num=st.integers(FEWEST_DOCUMENTS, 200), fraction=fractions)
def test_so_many_whole_documents_are_held_out(num: int, fraction: float) -> None:
    split = choose_split(documents(num), fraction)
    parts = [split.divide(document) for document in documents(num)]
    assert all((training == "") != (validation == "") for training, validation in parts)
    assert sum(validation != "" for _, validation in parts) == max(1, round(num * fraction))
    assert split.num_bytes == sum(len(document.text) for document in documents(num))


def test_the_order_of_documents_and_their_number_change_little() -> None:
    def held_out(of: list[Document]) -> set[str]:
        split = choose_split(of, 0.1)
        return {document.name for document in of if split.divide(document)[1]}

    fewer, more = held_out(documents(100)), held_out(documents(101))
    assert fewer == held_out(documents(100)[::-1])
    assert len(fewer ^ more) <= 2


def test_equal_rows_stay_together() -> None:
    rows = [Document(f"rows:{i}", f"text {i % 10}", f"text {i % 10}") for i in range(100)]
    split = choose_split(rows, 0.1)
    sides = [split.divide(row) for row in rows]
    assert not {training for training, _ in sides if training} & {validation for _, validation in sides if validation}
    assert any(validation for _, validation in sides)


@given(num=st.integers(1, FEWEST_DOCUMENTS - 1), fraction=fractions, text=st.text(min_size=1))
def test_of_few_documents_the_end_of_each_is_held_out(num: int, fraction: float, text: str) -> None:
    split = choose_split([Document(str(i), text, str(i)) for i in range(num)], fraction)
    training, validation = split.divide(Document("0", text, "0"))
    assert training + validation == text
    assert abs(len(validation) - fraction * len(text)) <= fraction * len(text) / 2 + 1


def test_the_end_begins_with_a_line() -> None:
    text = "".join(f"line {i}\n" for i in range(1_000))
    split = choose_split([Document("a", text, "a")], 0.1)
    training, validation = split.divide(Document("a", text, "a"))
    assert training.endswith("\n")
    assert validation.startswith("line ")
    assert "only document" in split.description
