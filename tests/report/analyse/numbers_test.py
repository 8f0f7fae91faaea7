"""Numbers and names as readers see them."""

from attn.report.analyse import numbers


def test_names_with_commas_are_told_apart():
    assert numbers.listed(["soft", "hard"]) == "soft, hard"
    assert numbers.listed(["soft", "hard, by the word"]) == "soft; hard, by the word"
    many = [f"row {n}" for n in range(numbers.MOST_NAMES + 2)]
    assert numbers.listed(many).endswith(" and 2 more")
    assert numbers.joined(many).endswith(f", row {numbers.MOST_NAMES + 1}")
