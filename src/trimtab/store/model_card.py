"""The model card: the README.md of an artifact."""

import json
import re
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from trimtab.errors import InputError
from trimtab.steering import Steering

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_METRIC_KEYS = {"value", "low", "high", "n"}
_LONGEST_CELL = 200


def render_card(steering: Steering, source: str) -> str:
    """Markdown with YAML front matter.

    Args:
        steering: ``facts["metrics"]``, if there, maps a name to ``{"value": x, "low": x, "high": x, "n": x}``, of which only
            ``value`` is needed and ``low`` to ``high`` is a 95 % interval; ``facts["license"]`` is the licence, ``unknown``
            without it; every other fact is a row of a table.
        source: what to pass to ``Steering.from_pretrained``.

    Raises:
        InputError: metrics of another form.
    """
    facts = {key: value for key, value in steering.facts.items() if key not in ("metrics", "license")}
    environment = Environment(
        loader=PackageLoader("trimtab.store"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=_cell, pystring=repr)
    return environment.get_template("model_card.md.j2").render(
        steering=steering,
        model=steering.model,
        gate=steering.gate,
        source=source,
        licence=str(steering.facts.get("license", "unknown")),
        base_model=steering.model.name if _HUB_ID.fullmatch(steering.model.name) else None,
        n_layers_steered=len(set(steering.layer.tolist())),
        share=f"{100 * len(steering) / steering.model.n_neurons:.3g} %",
        metrics=_metrics(steering.facts.get("metrics", {})),
        facts={**_flat(facts), **_flat({"gate": steering.gate.facts})},
    )


def _metrics(metrics: object) -> list[tuple[str, str, str, str]]:
    """(name, value, interval, n) as text."""
    form = (
        'facts["metrics"] must map a name to {"value": number, "low": number, "high": number, "n": count}; only "value" is needed'
    )
    if not isinstance(metrics, Mapping):
        raise InputError(f"{form}; got a {type(metrics).__name__}")
    rows = []
    for name, metric in metrics.items():
        if (
            not isinstance(metric, Mapping)
            or "value" not in metric
            or set(metric) - _METRIC_KEYS
            or ("low" in metric) != ("high" in metric)
        ):
            raise InputError(f"{form}, and low and high come together; got {name}: {metric!r}")
        interval = f"{_number(metric['low'])} to {_number(metric['high'])}" if "low" in metric else "not given"
        rows.append((str(name), _number(metric["value"]), interval, _number(metric.get("n", "not given"))))
    return rows


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _flat(facts: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for key, value in sorted(facts.items()):
        if isinstance(value, Mapping):
            rows.update(_flat(value, f"{prefix}{key}."))
        else:
            rows[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return rows


def _cell(value: object) -> str:
    """Text that cannot break out of a cell of a Markdown table."""
    text = " ".join(str(value).split())
    text = text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "'")
