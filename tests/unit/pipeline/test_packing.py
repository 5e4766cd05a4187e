import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexmeter.errors import MessageError
from flexmeter.messages import COLUMNS
from flexmeter.pipeline.check import Checked, Layout
from flexmeter.pipeline.packing import pack, split, unpack


@st.composite
def windows(draw):
    layouts = [
        Layout("acme", f"d{n}", tuple(f"m{k}" for k in range(n + 1)), (COLUMNS["voltage.a"], COLUMNS["frequency"]))
        for n in range(3)
    ]
    window = []
    for number in range(draw(st.integers(1, 8))):
        layout = draw(st.sampled_from(layouts))
        size = len(layout.meters) * 2
        values = np.arange(size) + 0.5 * number
        values[draw(st.integers(0, size - 1))] = np.nan
        sigma = draw(st.sampled_from([None, np.full(size, 0.1)]))
        quality = draw(st.sampled_from([None, np.arange(size).astype(np.uint8)]))
        kind = draw(st.sampled_from(["readings", "estimates"]))
        window.append(Checked(kind, layout, 1000 + number, values, layout.source, 1, number, sigma, 4, quality))
    return window


@given(windows())
def test_a_window_comes_back_as_it_was(window):
    back = unpack(pack(window))
    assert len(back) == len(window)
    for one, other in zip(back, window, strict=True):
        for field in ("kind", "layout", "time_ms", "source", "boot", "seq", "quality_of_all"):
            assert getattr(one, field) == getattr(other, field)
        np.testing.assert_array_equal(one.values, other.values)
        missing = np.full(other.values.size, np.nan)
        np.testing.assert_array_equal(
            missing if one.sigma is None else one.sigma, missing if other.sigma is None else other.sigma
        )
        nothing = np.zeros(other.values.size)
        np.testing.assert_array_equal(
            nothing if one.quality is None else one.quality, nothing if other.quality is None else other.quality
        )


@given(windows(), st.integers(1, 30))
def test_parts_are_bounded_and_complete(window, most):
    parts = list(split(window, most))
    assert [one for part in parts for one in part] == window
    assert all(len(part) == 1 or sum(one.values.size for one in part) <= most for part in parts)


@given(st.binary(max_size=60))
def test_garbage_is_refused(payload):
    with pytest.raises(MessageError):
        unpack(payload)
