"""``trimtab generate``: a prompt of words that the model cannot read is said to be one."""

import json
import sys
from pathlib import Path

import pytest

from steering_samples import neuron_set
from tiny_testbed import open_tiny_testbed
from trimtab.cli.main import main
from trimtab.steering import Steering


def test_words_that_the_tokenizer_does_not_know_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_tiny_testbed(tmp_path / "model")
    Steering.of(neuron_set(model.identity), 1.0).save_pretrained(tmp_path / "steering")
    for prompt, unknown in (("now dial 5 : a +6 as ever ?", False), ("now dial 5 : a +6 s'il vous plait ?", True)):
        arguments = [str(tmp_path / "model"), prompt, "--steering", str(tmp_path / "steering"), "--max-new-tokens", "2"]
        monkeypatch.setattr(sys, "argv", ["trimtab", "generate", *arguments])
        main()
        out, err = capsys.readouterr()
        assert "steered:" in out
        assert ("does not know 3 of" in err) == unknown


def test_a_sweep_prints_responses_and_doses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_tiny_testbed(tmp_path / "model")
    Steering.of(neuron_set(model.identity), 1.0).save_pretrained(tmp_path / "steering")
    arguments = [str(tmp_path / "model"), "now dial 5 : a +6 as ever ?", "--steering", str(tmp_path / "steering"), "--json"]
    arguments += ["--max-new-tokens", "4", "--sweep-strength", "0,1,2"]
    monkeypatch.setattr(sys, "argv", ["trimtab", "generate", *arguments])
    main()
    rows = json.loads(capsys.readouterr().out)["sweep"]
    assert [row["strength"] for row in rows] == [0.0, 1.0, 2.0]
    assert rows[0]["dose"] is None
    assert 0 < rows[1]["dose"] < rows[2]["dose"]


def test_a_sweep_of_words_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["testbed:reasoner", "now dial 5 : a +6 as ever ?", "--steering", "nowhere", "--sweep-strength", "much"]
    monkeypatch.setattr(sys, "argv", ["trimtab", "generate", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "takes numbers" in capsys.readouterr().err
