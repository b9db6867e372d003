"""The report shows the missing facts of the runs that were asked for them."""

import json

from stages.report import tables as report_tables
from stages.report.inputs import read_completions, read_run
from stages.report.page import page
from tests.helpers import report_world as world


def test_missing_facts_are_shown_with_what_is_known_of_their_probabilities(tmp_path):
    scorers = world.build(tmp_path, "DB15K", world.MODELS[:1])
    html = page(tmp_path, ["DB15K"], world.MODELS[:1], load=scorers.__getitem__)
    section = html.split('id="completions-')[1].split("</section>")[0]
    for shown in ("0.032", "22.5 %", "9 of 40", "&lt;b&gt;Head&lt;/b&gt;", "0.81", "<svg",
                  "how often right: AdaMF-MAT 50 % sure on the average and 51 % right."):  # fmt: skip
        assert shown in section
    folder = tmp_path / "runs/DB15K" / world.MODELS[0]
    stale = json.loads((folder / "run.json").read_text()) | {"fingerprint": "of a later training"}
    assert report_tables.completed([read_run(folder, "DB15K", world.MODELS[0])]) != []
    assert read_completions(folder, stale) == ({}, [])
