"""What the tests of this folder share."""

import pytest

from nl_plugins.visualization import attention


@pytest.fixture
def panels(monkeypatch):
    """The rows of panels of each figure that is plotted."""
    figures = []
    plot = attention.plot_panels

    def record(rows, scale):
        figures.append(rows)
        return plot(rows, scale)

    monkeypatch.setattr(attention, 'plot_panels', record)
    return figures
