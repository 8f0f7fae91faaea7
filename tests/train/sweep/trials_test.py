"""Settings that rows try: grids and lists, from files and from the command line."""

import pytest

from attn import settings
from attn.train.sweep import trials


def test_a_command_gives_a_grid_of_typed_values():
    found = trials.asked(["schedule.peak=0.1,3e-4", "optimizer.name=adam,lion"])
    assert found == (
        {"schedule.peak": 0.1, "optimizer.name": "adam"},
        {"schedule.peak": 0.1, "optimizer.name": "lion"},
        {"schedule.peak": 3e-4, "optimizer.name": "adam"},
        {"schedule.peak": 3e-4, "optimizer.name": "lion"},
    )
    assert trials.asked(["config.schedule.boundaries=(1,2),(3,4)"]) == (
        {"schedule.boundaries": [1, 2]},
        {"schedule.boundaries": [3, 4]},
    )


def test_nothing_asked_is_not_none_asked():
    assert trials.asked([]) is None
    assert trials.asked(["none"]) == ()
    assert trials.listed(None) == ()


def test_a_file_may_list_trials_one_by_one():
    given = [{"a.b": 1, "a.c": 2}, {"a.b": 3, "a.c": 4}]
    assert trials.listed(given) == tuple(given)


@pytest.mark.parametrize("text", ["schedule.peak", "=1", "", "none"])
def test_a_text_of_another_form_is_refused(text):
    with pytest.raises(settings.Invalid):
        trials.asked([text, "schedule.peak=1,2"])


@pytest.mark.parametrize("text", ["{[]:1},2", "(" * 300 + ")" * 300, "-" * 99999 + "1"])
def test_a_text_that_is_no_literal_is_words(text):
    assert trials.asked([f"a.b={text}"])[0] == {"a.b": text.removesuffix(",2")}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "tune takes {field: values} or a list"),
        ({}, "tune takes {field: values} or a list"),
        ({"a.b": []}, "tune takes {field: values} or a list"),
        ({"a.b": 3}, "tune takes {field: values} or a list"),
        ([{"a.b": 1}, {"a.c": 1}], "must set the same fields"),
        ([{}], "must set the same fields"),
        ({"a": [1], "a.b": [2]}, "tune sets 'a' and 'a.b' inside it"),
        ({"seed": [1, 2]}, "tune cannot set the seed"),
        ({"a.b": [1, 2, 1]}, r'tune tries {"a.b": 1} twice'),
    ],
)
def test_what_cannot_be_tried_is_refused(given, says):
    with pytest.raises(settings.Invalid) as caught:
        trials.listed(given)
    assert says in str(caught.value)
