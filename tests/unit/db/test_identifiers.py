"""Names as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchd.db.identifiers import Name, nearest, parse_name, written


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\x00"), min_size=1), min_size=1, max_size=3))
def test_what_is_written_reads_back(parts: list[str]) -> None:
    """`written` quotes whatever needs it, so that `parse_name` gives the same parts again."""
    assert [name.text for name in parse_name(written(*parts))] == parts


@pytest.mark.parametrize("text", ["", "a.", ".a", 'a"b', '"a', "a b", "a;b", "a.b c", "logs; DROP TABLE x"])
def test_what_is_no_name_is_refused(text: str) -> None:
    """Broken quotes, blanks and punctuation are errors, not parts of a name."""
    with pytest.raises(ValueError, match="not a name"):
        parse_name(text)


def test_quotes_decide_between_cases() -> None:
    """A quoted name is exact; an unquoted one finds any case, unless two could be meant."""
    assert Name("Session", quoted=True).choose(["session"]) is None
    assert Name("session", quoted=False).choose(["Session"]) == "Session"
    with pytest.raises(ValueError, match="double quotes"):
        Name("session", quoted=False).choose(["Session", "session"])


def test_a_hint_names_what_is_close() -> None:
    """Also when the name lies in another schema."""
    assert nearest("lgos", ["logs", "users"]) == "did you mean logs?"
    assert nearest("logs", ["audit.logs"]) == "did you mean audit.logs?"
    assert nearest("zzz", ["logs"]) is None
