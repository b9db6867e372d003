"""Long work in a batch job says a line a minute, and draws no bar."""

import logging

from stages import progress


def test_without_a_terminal_a_line_is_said_each_minute(caplog, capsys, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with progress.Bar(total=1000, desc="encode texts of mini", unit=" rows") as bar:
        bar.update(10)
        assert caplog.records == [], "not before a minute is over"
        now[0] += 61
        bar.set_postfix_str("2 failed", refresh=False)
        bar.update(240)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("encode texts of mini: 250 of 1,000 rows, ")
    assert line.endswith(" a second, 3 min left, 2 failed (61 s so far)")
    assert capsys.readouterr().err == ""


def test_the_rate_of_an_unknown_total_is_said_too(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.setattr(progress, "MINUTE", 0.0)
    assert [*progress.Bar(iter(range(2)), desc="images mini", unit=" pictures")] == [0, 1]
    assert caplog.records[0].getMessage().startswith("images mini: ")
    assert " of " not in caplog.records[0].getMessage()
