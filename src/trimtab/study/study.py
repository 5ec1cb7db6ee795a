"""A study: one model, one task and the verbs of the method as methods, on a cache that never computes the same thing twice."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from trimtab.directions import Directions
from trimtab.errors import ConfigError, InputError
from trimtab.evaluation.finetune_training import TrainedSettings
from trimtab.evaluation.outcomes import Outcome
from trimtab.evaluation.runner import Condition
from trimtab.evaluation.settings import DirectionSettings, EvaluationSettings
from trimtab.execution import ExecutorSettings
from trimtab.experiments import EXPERIMENTS, ExperimentName, Search
from trimtab.findings import Findings
from trimtab.gate import PromptGate, RunningGate
from trimtab.gating.settings import GateSettings, RunningGateSettings
from trimtab.model import LanguageModel
from trimtab.neurons import Neurons
from trimtab.ranking import DEFAULT_STATISTICS, ClassMoments, Statistic
from trimtab.recording import Recording
from trimtab.sampling import SamplingSettings
from trimtab.steering import Steering
from trimtab.store import (
    AnyPath,
    Entry,
    any_path,
    read_json,
    write_json,
    write_text,
)
from trimtab.study import along, answers, find, gather, judge, tuning
from trimtab.study import train as training
from trimtab.study.along import DirectionTuning
from trimtab.study.settings import (
    ModelSettings,
    RankingSettings,
    TuneSettings,
    changed,
    parse_settings,
)
from trimtab.study.values import Evaluation, Problems, Traces, Tuning
from trimtab.tasks import Prompt, render_prompt
from trimtab.tasks.contrast import ContrastRow
from trimtab.traces import Problem, Split

if TYPE_CHECKING:
    pass


from trimtab.study.base import IN_MEMORY, StudyBase

Method = TypeVar("Method", bound=Callable[..., object])


def _takes(settings: type[BaseModel]) -> Callable[[Method], Method]:
    """Show the fields of a settings model as keyword arguments, where a notebook and ``help`` look for them.

    The model is the one place that holds each name, type, default and error; a method passes what it gets on to it.
    """

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method)
        kept = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        fields = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
            for name, field in settings.model_fields.items()
            if name not in {p.name for p in kept}
        ]
        method.__signature__ = signature.replace(parameters=[*kept, *fields])  # type: ignore[attr-defined]
        return method

    return decorate


class Study(StudyBase):
    """A model on a task. Every verb is a method: it computes what is missing, keeps it, and returns a value that shows itself.

    Results are cached under keys made of all that decides them: a repeated call reads, another setting gets another key,
    and a killed call continues where it was. Keyword arguments of a verb are the settings of its section in ``run.toml``,
    with the same names, defaults and messages; a study remembers them, so ``rank`` after ``sample(n=4)`` ranks by these traces.

    Args:
        model: hub id, folder, ``testbed:NAME``, or a loaded transformers model (then with its tokenizer) or
            :class:`trimtab.model.LanguageModel`.
        tokenizer: of a loaded model.
        task: a benchmark's name, ``testbed``, ``local:PATH``, a list of mappings with ``question`` and ``answer`` (ids and splits
            are made where they are missing), a ``datasets.Dataset`` with these columns, or a whole ``[task]`` section.
        train, validation, test: at most this many problems of each split.
        path: keep everything in this folder or at this fsspec URL; without it in the folder ``TRIMTAB_CACHE``, else in the
            platform's folder for caches.
        settings: sections as ``run.toml`` holds them, or :class:`trimtab.study.Settings`.
        progress: shows how far a verb is; silent by default.
        note: is told what a user may want to know, such as what starves a contrast; by default it is logged.

    Raises:
        ConfigError: settings that are not accepted, or a path that holds something else.

    Example:
        >>> study = Study("testbed:reasoner", train=4, validation=4, test=4)
        >>> study.problems()
        12 problems: 4 train, 4 validation, 4 test
    """

    # --- verbs -------------------------------------------------------------------------------------------------------------

    def problems(self) -> Problems:
        """The problems of every split."""
        return gather.load_problems(self)

    @_takes(SamplingSettings)
    def sample(self, **settings: object) -> Traces:
        """Sample traces of the train split and grade them.

        Args:
            settings: of the section ``[sampling]``: ``n`` traces a problem, ``temperature``, ``top_p``, ``max_new_tokens``,
                ``seed``, ``batch_tokens``.

        Raises:
            ConfigError: an unknown setting or a bad value.
            ModelError: a logit is NaN.
        """
        self._set("sampling", settings)
        found = self.traces()
        if hint := gather.starved(found):
            self.note(hint)
        return found

    @_takes(RankingSettings)
    def rank(self, criterion: str | None = None, **settings: object) -> Neurons:
        """Rank all neurons by a criterion and keep the best ``k``; traces, contrast and recording are made where missing.

        Args:
            criterion: one of :data:`trimtab.ranking.CRITERIA`; None takes the first of the settings.
            settings: of the section ``[ranking]``: ``k``, ``scope``.

        Raises:
            NotEnoughDataError: no problem has both a correct and an incorrect trace.
        """
        if criterion is not None:
            kept = self.settings.ranking.criteria
            settings = {"criteria": (criterion, *(name for name in kept if name != criterion)), **settings}
        self._record_for(settings)
        self._set("ranking", settings)
        first = self.settings.ranking.criteria[0]
        return find.rankings(self, [first], self.settings.ranking.k)[first]

    @_takes(GateSettings)
    def fit_gate(self, **settings: object) -> PromptGate:
        """Fit p(fail) from the prompt on greedy answers to the train split; choose its threshold on the validation split.

        Args:
            settings: of the section ``[gate]``: ``kind``, ``pooling``, ``penalty``, ``mode``, ``features``.
        """
        self._set("gate", settings)
        return find.fit_gate(self)

    @_takes(RunningGateSettings)
    def fit_running_gate(self, **settings: object) -> RunningGate:
        """Fit p(fail) from the response so far on the contrast's traces; choose its thresholds on validation responses.

        ``evaluate(gates=("running", "both-gates", "running-random"))`` evaluates the steering behind it.

        Args:
            settings: of ``[running_gate]``: ``features``, ``memory``, ``action``, ``hysteresis``, ``after``, ``join``.
        """
        self._set("running_gate", settings)
        return find.fit_running_gate(self)

    @_takes(TuneSettings)
    def tune(self, criteria: Sequence[str] | None = None, **settings: object) -> Tuning:
        """Choose criterion, intervention, K and strength on the validation split.

        Args:
            criteria: to choose from; the section ``[ranking]`` keeps them.
            settings: of the section ``[tune]``: ``interventions``, ``k``, ``strengths``, ``scope``, ``problems``.

        Returns:
            The grid, and ``steering``, that of its best point.
        """
        ks = settings.get("k", self.settings.tune.k)
        ranking: dict[str, object] = {} if criteria is None else {"criteria": tuple(criteria)}
        if isinstance(ks, Sequence) and ks and all(isinstance(k, int) for k in ks) and max(ks) > self.settings.ranking.k:
            ranking["k"] = max(ks)
        sections = self.settings.model_dump(mode="json")
        sections["ranking"] |= ranking
        sections["tune"] |= settings
        self._record_for(ranking)
        sections["recording"] = self.settings.recording.model_dump(mode="json")
        self.settings = parse_settings(sections, "tune")
        return self.tuned()

    @_takes(TrainedSettings)
    def train(self, steering: Steering | None = None, **settings: object) -> Steering:
        """Learn gains and shifts for a steering's neurons by gradient, from the correct responses of the contrast.

        Each learning rate is one training of the frozen model's edit, and the rate with the best accuracy on the validation split
        is kept. What comes back has the same neurons, scope and gate, and is attached, evaluated and exported like any steering.

        Args:
            steering: whose neurons; None takes the best of :meth:`tune`. Its own gains and shifts are not read.
            settings: of the section ``[evaluation.trained]``: ``learning_rates``, ``gains``, ``epochs``, ``max_steps`` ...

        Raises:
            NotEnoughDataError: no correct trace, or several rates and no validation problem to choose one on.
            MismatchError: a steering made for other weights.

        Example:
            >>> trained = study.train(learning_rates=(0.03, 0.1))  # doctest: +SKIP
            >>> study.evaluate(trained).verdict.sentence  # doctest: +SKIP
        """
        if settings:
            changed(self.settings.evaluation.trained, settings, "evaluation.trained")
            kept = self.settings.evaluation.trained.model_dump(mode="json")
            self._set("evaluation", {"trained": {**kept, **settings}})
        chosen = self.tuned().steering if steering is None else steering
        return training.train(self, chosen, self.settings.evaluation.trained)

    def directions(self) -> Directions:
        """The difference of class means of the residual stream after every layer: contrastive activation addition.

        ``correct_mean - incorrect_mean`` over the contrast's traces, of each trace the mean over its tokens of ``ranking.scope``.
        Source: Rimsky et al., arXiv 2312.06681.

        Raises:
            NotEnoughDataError: no problem has both a correct and an incorrect trace.
        """
        return along.directions(self)

    @_takes(DirectionSettings)
    def tune_direction(self, **settings: object) -> DirectionTuning:
        """Choose the layer and the strength of a direction on the validation split, behind the gate of :meth:`fit_gate`.

        Args:
            settings: of the section ``[direction]``: ``layers``, ``strengths``.

        Returns:
            The grid, and ``steering``, that of its best point.
        """
        self._set("direction", settings)
        return along.tune_direction(self)

    @_takes(EvaluationSettings)
    def evaluate(self, steering: Steering | None = None, **settings: object) -> Evaluation:
        """Open the test split: every condition on the same problems, paired with the unsteered model.

        Args:
            steering: under test; None takes the best of :meth:`tune` under the study's settings.
            settings: of the section ``[evaluation]``: ``controls``, ``baselines``, ``random_sets``, ``n``, ``seeds`` ...

        Raises:
            MismatchError: a steering made for other weights.
        """
        self._set("evaluation", settings)
        tuning = self.tuned() if steering is None else self._tuning
        if steering is not None and tuning is not None and tuning.steering.digest != steering.digest:
            tuning = None  # another steering than the grid's best, so the grid says nothing of it
        chosen = tuning.steering if tuning is not None else steering
        with self._verb("evaluate"):
            wanted = "trained" in self.settings.evaluation.baselines
            trained = training.train(self, chosen, self.settings.evaluation.trained) if wanted else None  # type: ignore[arg-type]
            evaluation = judge.evaluate(self, chosen, tuning, trained)  # type: ignore[arg-type]  # one of the two is there
        evaluation = replace(evaluation, page=partial(_view_page, self, evaluation, tuning))
        self._judged = (evaluation, tuning)
        return evaluation

    def experiment(self, name: ExperimentName, **settings: object) -> Findings:
        """One experiment on what :meth:`tune` chose: sentences and tidy frames.

        Args:
            name: one of ``ablate, sweep, transfer, causal, domains, stability, transfer-model, monitor, analyse``.
            settings: of the section ``[experiment]``.

        Raises:
            ConfigError: an unknown experiment or setting.
        """
        if name not in EXPERIMENTS:
            raise ConfigError(f"unknown experiment {name!r}; accepted: {', '.join(EXPERIMENTS)}")
        self._set("experiment", settings)
        experiment, tuning = EXPERIMENTS[name], self.tuned()
        entry = self.experiment_entry(name, tuning)

        def work(folder: "AnyPath") -> None:
            with self._verb(name):
                search = Search(self, tuning, experiment.reads, name)
                write_json(folder / "findings.json", experiment.run(search).to_json())

        return self.compute(name, entry, work, lambda folder: Findings.from_json(read_json(folder / "findings.json")))  # type: ignore[arg-type]

    def experiment_entry(self, name: ExperimentName, tuning: Tuning) -> Entry:
        """The cache entry of an experiment on the tuned steering, computed or not."""
        facts = {"name": name, "settings": self._told_by(name), "tune": tuning.key, "steering": tuning.steering.digest}
        if name == "ablate":
            facts["trained"] = self.settings.evaluation.trained.model_dump(mode="json")
        reads = EXPERIMENTS[name].reads
        problems = {split.value: self.problems().digests[split] for split in Split if split in reads}
        return self.entry("experiment", {**facts, "problems": problems, **self.grader_facts, **self.engine_facts()})

    def report(self, path: "str | os.PathLike[str] | AnyPath | None" = None) -> "AnyPath":
        """Write the report of the last evaluation, or of the one that the study's settings ask for.

        Args:
            path: of the HTML file, with its data as JSON beside it; None is ``report.html`` in the study's path.

        Raises:
            InputError: no path, or plotly is not installed.
        """
        from trimtab.report.html import render_html
        from trimtab.study.report_data import build_report

        if path is None and self.path is None:
            raise InputError("this study has no path to leave its report in; name a file: study.report('report.html')")
        target = any_path(path) if path is not None else self.cache.root / "report.html"
        if self._judged is None:
            self.evaluate()
        report = build_report(self, *self._judged)  # type: ignore[misc]  # evaluate has set it
        view = self.view(target.with_name("view.html" if target.name == "report.html" else f"{target.stem}.view.html"))
        page = render_html(report, view=view.name)
        write_json(target.with_suffix(".json"), report.model_dump(mode="json"), report.run.config_digest)
        write_text(target, page)
        return target

    def view(self, path: "str | os.PathLike[str] | AnyPath | None" = None) -> "AnyPath":
        """Write the view of the last evaluation, or of the one that the study's settings ask for: one HTML file to look at every
        pair of responses with.

        Args:
            path: of the file; None is ``view.html`` in the study's path.

        Raises:
            InputError: no path.
        """
        if path is None and self.path is None:
            raise InputError("this study has no path to leave its view in; name a file: study.view('view.html')")
        target = any_path(path) if path is not None else self.cache.root / "view.html"
        if self._judged is None:
            self.evaluate()
        evaluation, tuning = self._judged  # type: ignore[misc]  # evaluate has set it
        write_text(target, _view_page(self, evaluation, tuning))
        return target

    def generate(self, question: str, max_new_tokens: int | None = None) -> str:
        """The model's greedy response to one question, steered inside a ``with steering.attach(study.model)`` block.

        Args:
            question: put to the model as the task's problems are.
            max_new_tokens: None takes that of the section ``[sampling]``.
        """
        ids = torch.tensor([render_prompt(self.model.tokenizer, question, self.settings.prompt)], device=self.model.device)
        limit = max_new_tokens or self.settings.sampling.max_new_tokens
        with torch.inference_mode():
            found = self.model.hf_model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
            )
        return str(self.model.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))

    # --- what experiments work with -----------------------------------------------------------------------------------------

    def traces(self, split: Split | str = Split.TRAIN, *, greedy: bool = False) -> Traces:
        """Traces with their grades: those of :meth:`sample`, or with ``greedy`` the one greedy trace of each problem."""
        return gather.traces(self, Split(split), greedy=greedy)

    def contrast(self) -> list[ContrastRow]:
        """The traces that are compared."""
        return gather.contrast(self)[0]

    def recording(self, criteria: Sequence[str] = ()) -> Recording:
        """The moments of the contrast's traces, as far as these criteria read them."""
        return find.recordings(self, criteria=criteria or self.settings.ranking.criteria)["contrast"]

    def moments(self, rows: Sequence[ContrastRow], statistics: Sequence[Statistic] = tuple(DEFAULT_STATISTICS)) -> ClassMoments:
        """Class moments of some of the contrast's traces."""
        return find.moments(self, rows, statistics, criteria=self.settings.ranking.criteria)

    def prompt_recordings(self) -> dict[Split, Recording]:
        """The recorded prompts of the train and validation splits, which a gate reads; none where no gate is fitted."""
        if not self.settings.gate.fitted:
            return {}
        found = find.recordings(self, gate=True)
        return {split: found[split.value] for split in (Split.TRAIN, Split.VALIDATION)}

    def failed(self, split: Split) -> NDArray[np.bool_]:
        """bool ``[problem]``: whether the unsteered model's greedy answer is not correct."""
        return find.failed(self, split)

    def tuned(self) -> Tuning:
        """The result of :meth:`tune` under the present settings."""
        self._tuning = tuning.tune(self)
        return self._tuning

    def trained(self, steering: Steering, learning_rate: float | None = None) -> Steering:
        """What :meth:`train` makes of a steering under the present settings, or at one learning rate."""
        settings = self.settings.evaluation.trained
        rates = settings.learning_rates if learning_rate is None else (learning_rate,)
        return training.train(self, steering, settings.model_copy(update={"learning_rates": rates}))

    def answers(
        self,
        condition: Condition,
        problems: Sequence[Problem],
        sampling: SamplingSettings | None = None,
        *,
        prompt: Prompt | None = None,
        what: str = "answers",
    ) -> list[Outcome]:
        """Graded responses to some problems under one condition, in the order of the problems and their samples.

        Args:
            condition: what is attached, and how its gate is set.
            problems: all of one split, or some of them.
            sampling: None is greedy under the section ``[sampling]``.
            prompt: None is the task's.
            what: the verb that asks, for progress and the ledger.
        """
        asked = answers.Asked(condition, problems, sampling or self.settings.sampling.greedy(), prompt=prompt)
        return answers.answers(self, [asked], what=what)[0]

    def on(self, model: LanguageModel) -> "Study":
        """The same settings and problems on another model, on the same cache; it is open in this process alone, and runs here."""
        changed = {"model": ModelSettings(source=IN_MEMORY), "executor": ExecutorSettings()}
        other = Study(model, settings=self.settings.model_copy(update=changed), path=self.path)
        other.progress, other.note, other._opening = self.progress, self.note, self._opening
        return other

    # --- the test split ----------------------------------------------------------------------------------------------------

    def open_test(self, what: str, problems: Sequence[Problem]) -> None:
        """Note that test problems are opened: once for each verb that computes something new on them."""
        if self._opening and self._opening[-1] == "":
            return
        answers.open_test(self, self._opening[-1] if self._opening else what, problems)
        if self._opening:
            self._opening[-1] = ""

    def openings(self) -> int:
        """How often these test problems have been opened with this model."""
        return answers.ledger_openings(self)

    @contextmanager
    def _verb(self, name: str) -> Iterator[None]:
        """Within, test problems are opened once, and prompts that were read for one condition are kept for the next."""
        self._opening.append(name)
        outer, self.kept_prompts = self.kept_prompts, self.kept_prompts or answers.KeptPrompts()
        try:
            yield
        finally:
            self.kept_prompts = outer
            self._opening.pop()

    def _record_for(self, ranking: Mapping[str, object]) -> None:
        """Add to what is recorded what newly named criteria read."""
        named = ranking.get("criteria", ())
        known = [name for name in named if name in find.NEEDS] if isinstance(named, tuple) else []
        moments = find.recording_settings(self, known).moments
        if moments != self.settings.recording.moments:
            recording = self.settings.recording.model_copy(update={"moments": moments})
            self.settings = self.settings.model_copy(update={"recording": recording})

    def _told_by(self, name: ExperimentName) -> dict[str, object]:
        """The settings that an experiment reads, for its key: its own section and those that all of them read."""
        sections = self.settings.experiment.model_dump(mode="json")
        others = {"sweep", "stability", "monitor"} - {name}
        return {key: value for key, value in sections.items() if key not in others}


def _view_page(study: Study, evaluation: Evaluation, tuning: Tuning | None) -> str:
    from trimtab.report.view_page import render_view
    from trimtab.study.view_data import build_view

    return render_view(build_view(study, evaluation, tuning))
