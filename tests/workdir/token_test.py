"""The token of a work directory: the same where it is shared, and only there."""

import pytest

from attn import settings
from attn.workdir import files, token


def test_a_directory_has_one_token_and_another_of_the_same_name_another(tmp_path):
    here, there = tmp_path / "here/runs", tmp_path / "there/runs"
    made = token.made(here)
    assert token.made(here) == made
    token.check(here, made)
    files.check(here)  # still one for a sweep
    for _ in range(2):  # without a token, and with its own
        with pytest.raises(settings.Invalid, match=f"{there} is not on .* share"):
            token.check(there, made)
        assert token.made(there) != made
