"""``trimtab generate``: a prompt of words that the model cannot read is said to be one."""

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
