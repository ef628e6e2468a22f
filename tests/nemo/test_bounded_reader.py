from __future__ import annotations

import io

import pytest

from artifacts.nemo.bounded_reader import BoundedReader, BoundError


def test_headers_have_a_budget_and_contents_have_none() -> None:
    reader = BoundedReader(io.BytesIO(bytes(5000)), None, 1024)
    assert [reader.read(512), reader.read(512)] == [bytes(512)] * 2
    with pytest.raises(BoundError, match="too many members"):
        reader.read(1)
    reader.header_bytes_left = None
    assert len(reader.read(10_000)) == 5000 - 1024


def test_one_header_has_a_bound_of_its_own() -> None:
    reader = BoundedReader(io.BytesIO(bytes(5000)), None, 10**6)
    with pytest.raises(BoundError, match="too long a header"):
        reader.read(513)


@pytest.mark.parametrize("end", [100, 512])
def test_nothing_is_read_beyond_the_end(end: int) -> None:
    reader = BoundedReader(io.BytesIO(bytes(5000)), end, 10**6)
    assert len(reader.read(end)) == end
    assert reader.tell() == end
    for act in (lambda: reader.read(1), lambda: reader.seek(end + 1)):
        with pytest.raises(BoundError, match=f"unpacks to more than {end} bytes"):
            act()
    assert reader.seek(end - 1) == end - 1
