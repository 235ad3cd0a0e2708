"""Words to numbers and back."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from lebm.models.text_likelihood import END, PAD, SPECIAL, START, UNKNOWN, Vocabulary

TEXT = ["The cat sat, and the dog ran.", "The cat's mother-in-law (it says) ran!", "the the the"]


def pad_rows(rows: list[list[int]]) -> torch.Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)


def test_words_are_kept_by_frequency_and_the_rest_is_unknown() -> None:
    words = Vocabulary.learn(["b a c", "b A", "b d"], 6)
    assert len(words) == 6
    assert words.encode(["a b c", "zebra B"], 10) == [[5, 4, UNKNOWN, END], [UNKNOWN, 4, END]]
    assert words.decode(torch.tensor([[4, 5, UNKNOWN, END]])) == ["b a <unk>"]


def test_the_same_sentences_give_the_same_vocabulary() -> None:
    tied = [" ".join(f"w{(7 * number) % 1000}" for number in range(1000))]
    first, second = (Vocabulary.learn(tied, 300) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert Vocabulary.learn(TEXT, 300, "bpe") == Vocabulary.learn(TEXT, 300, "bpe")
    assert first != Vocabulary.learn(TEXT, 300)


def test_a_sentence_that_is_too_long_is_cut_and_does_not_end() -> None:
    words = Vocabulary.learn(["a b c d e"], 20)
    assert [len(row) for row in words.encode(["a b c", "a b c d", "a b c d e", "a"], 4)] == [4, 4, 4, 2]
    assert [row[-1] == END for row in words.encode(["a b c", "a b c d", "a b c d e", "a"], 4)] == [
        True,
        False,
        False,
        True,
    ]


def test_print_has_its_spaces() -> None:
    words = Vocabulary.learn(TEXT, 100, lowercase=False)
    assert words.decode(pad_rows(words.encode(TEXT, 40))) == TEXT


def test_byte_pairs_know_everything() -> None:
    words = Vocabulary.learn(TEXT, 300, "bpe", lowercase=False)
    told = ["Ünïcödé ☃ 漢字, \x07 and <eos> <pad>", *TEXT]
    rows = words.encode(told, 200)
    assert not any(UNKNOWN in row for row in rows)
    assert words.decode(pad_rows(rows)) == told


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_special_tokens_in_a_sentence_are_text(kind) -> None:
    words = Vocabulary.learn([*TEXT, "<eos> <pad> <bos>"], 300, kind)
    (row,) = words.encode(["the <eos> cat <pad> <bos> ran"], 100)
    assert PAD not in row
    assert START not in row
    assert row.count(END) == 1


def test_the_mark_of_prepared_corpora_is_the_unknown_word() -> None:
    words = Vocabulary.learn(["the <unk> ran", "the <unk> sat"], 50)
    assert words.encode(["the <unk> sat"], 9)[0][1] == UNKNOWN
    assert len(words) == len(SPECIAL) + 3


def test_numbers_without_a_word_are_unknown() -> None:
    words = Vocabulary.learn(["a b"], 50)
    assert words.decode(torch.tensor([[4, 49, START, END, 5]])) == ["a <unk> <unk>"]
    assert words.decode(torch.tensor([[END, 4], [PAD, 4]])) == ["", ""]


def test_it_travels_as_text() -> None:
    words = Vocabulary.learn(TEXT, 100)
    assert isinstance(words.to_json(), str)
    for other in (Vocabulary(words.to_json()), copy.deepcopy(words), pickle.loads(pickle.dumps(words))):
        assert other == words
        assert other.encode(TEXT, 10) == words.encode(TEXT, 10)


@pytest.mark.parametrize("text", ["", "{}", "nonsense", json.dumps({"version": "1.0"})])
def test_what_is_no_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a readable vocabulary") as caught:
        Vocabulary(text)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_of_someone_else_is_refused() -> None:
    from tokenizers import Tokenizer, models

    with pytest.raises(ValueError, match="its first tokens must be <pad>"):
        Vocabulary(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str())


@pytest.mark.parametrize(("size", "kind"), [(4, "word"), (259, "bpe")])
def test_a_size_without_room_is_refused(size: int, kind) -> None:
    with pytest.raises(ValueError, match=f"vocabulary_size must be at least .* not {size}"):
        Vocabulary.learn(TEXT, size, kind)
