"""Programs of schedulers, played."""

import pytest

from tests.launchers.programs import Programs


@pytest.fixture
def programs(tmp_path, monkeypatch):
    return Programs(tmp_path / "bin", monkeypatch)
