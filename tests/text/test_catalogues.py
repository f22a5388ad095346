from collections import Counter

import pytest

from das_lib.config.tree import Domain
from das_lib.errors import DasError
from das_lib.text import codec
from das_lib.text.catalogues import Catalogue, entities_of, read_catalogue


def written(folder, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_a_text_file_has_a_name_a_line_and_what_is_none_has_a_reason(tmp_path):
    lines = [
        b"\xef\xbb\xbfDua Lipa",
        b"",
        b"  Bj\xc3\xb6rk ",
        b"dua lipa!",
        b"caf\xe9",
        b"?!",
        b"x" * 80,
    ]
    catalogue = read_catalogue("artist", written(tmp_path, "a.txt", b"\r\n".join(lines)))
    assert catalogue.entities == ["Dua Lipa", "Björk"]
    assert [(r.id, r.reason) for r in catalogue.rejects] == [
        ("artist:4", "duplicate"),
        ("artist:5", "not-utf8"),
        ("artist:6", "no-name"),
        ("artist:7", "too-long"),
    ]


def test_a_csv_file_has_a_column_of_the_kinds_name(tmp_path):
    path = written(
        tmp_path, "a.csv", 'year,artist\n1999,"Earth, Wind & Fire"\n2001,Björk\n2002\n'.encode()
    )
    assert read_catalogue("artist", path).entities == ["Earth, Wind & Fire", "Björk"]
    with pytest.raises(DasError, match="name the one with the entities 'team'"):
        read_catalogue("team", path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.txt", b"\n??\n", "holds no name .1 lines"), ("a.xlsx", b"A", "name the file")],
)
def test_a_file_without_names_is_refused(tmp_path, name, content, message):
    with pytest.raises(DasError, match=message):
        read_catalogue("artist", written(tmp_path, name, content))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DasError, match="nowhere"):
        read_catalogue("artist", str(tmp_path / "nowhere.txt"))


def test_every_entity_comes_once_before_any_comes_again():
    artists = Catalogue("artist", [f"a{n}" for n in range(10)])
    drawn = [artists.draw(n, 0) for n in range(25)]
    assert set(drawn[:10]) == set(drawn[10:20]) == set(artists.entities)
    assert drawn[:10] != drawn[10:20]
    assert drawn == [artists.draw(n, 0) for n in range(25)]


def test_more_kinds_than_a_prompt_mentions_take_turns():
    kinds = [Catalogue(kind, [f"{kind}{n}" for n in range(4)]) for kind in "abc"]
    counts = Counter(entity for n in range(6) for entity in entities_of(kinds, n, 0))
    assert set(counts.values()) == {1}
    assert len(counts) == 12


def test_prompts_mention_the_entities_in_later_rounds_too(music, tmp_path):
    names = [f"Singer {chr(65 + n)}" for n in range(12)]
    path = written(tmp_path, "a.txt", "\n".join(names).encode())
    domain = Domain(**music.model_dump() | {"catalogues": {"artist": path}})
    catalogues = [read_catalogue("artist", path)]
    rows = []
    for number in range(3):
        rows += codec.seed_rows(domain, 4, 0, number=number, catalogues=catalogues).to_pylist()
    assert len({row["id"] for row in rows}) == 12
    assert {row["entities"][0] for row in rows} == set(names)
    reply = '{"keywords": ["guitar", "Singer B"], "instruction": "Ask about songs."}'
    made = codec.parse_instruction(rows[0], reply)
    assert made["keywords"][:2] == [rows[0]["entities"][0], "guitar"]
    assert rows[0]["entities"][0] in codec.text_messages(made, 5)[-1]["content"]
