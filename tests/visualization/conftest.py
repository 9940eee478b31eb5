"""What the tests of this folder share."""

import pytest

from nl_plugins.visualization import attention


@pytest.fixture
def panels(monkeypatch):
    """The titles of the panels that are plotted, and their crosses."""
    titles, marks = [], []
    titled = attention._titled

    def record(visualizer, image, title, mark):
        titles.append(title)
        marks.append(tuple(mark[0]))
        return titled(visualizer, image, title, mark)

    monkeypatch.setattr(attention, '_titled', record)
    return titles, marks
