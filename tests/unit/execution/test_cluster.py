"""Which pools fit into which cluster, without a cluster."""

import builtins
import threading
import time
from collections.abc import Mapping

import pytest

from trimtab.errors import ConfigError
from trimtab.execution import ExecutorSettings, ray_executor
from trimtab.execution.ray_executor import Pool, connected, fit_pool, import_ray, left_of, threads_joined

LAPTOP = [{"CPU": 2.0}]
EIGHT_GPUS = [{"CPU": 96.0, "GPU": 8.0}]
CLUSTER = [{"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}]


def fit(nodes: list[Mapping[str, float]], threads: int = 1, gpus: int = 1, **settings: float) -> Pool:
    return fit_pool(ExecutorSettings.model_validate({"kind": "ray", **settings}), nodes, threads, gpus)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (fit(LAPTOP), Pool(2, 0.5, 0.0)),
        (fit(LAPTOP, threads=2), Pool(1, 1.0, 0.0)),
        (fit(LAPTOP, actors=1), Pool(1, 1.0, 0.0)),
        (fit(LAPTOP, actors=4), Pool(4, 0.25, 0.0)),
        (fit([{"CPU": 1.0}], threads=4), Pool(1, 0.5, 0.0)),
        (fit(EIGHT_GPUS), Pool(8, 1.0, 1.0)),
        (fit(EIGHT_GPUS, num_gpus=4), Pool(2, 1.0, 4.0)),
        (fit(EIGHT_GPUS, gpus=2), Pool(4, 1.0, 2.0)),
        (fit(EIGHT_GPUS, gpus=2, num_gpus=4), Pool(2, 1.0, 4.0)),
        (fit(LAPTOP, gpus=2), Pool(2, 0.5, 0.0)),
        (fit(EIGHT_GPUS, num_gpus=0.5), Pool(16, 1.0, 0.5)),
        (fit(EIGHT_GPUS, gpus=0, threads=24), Pool(4, 1.0, 0.0)),
        (fit(EIGHT_GPUS, num_gpus=0, actors=2), Pool(2, 1.0, 0.0)),
        (fit(CLUSTER), Pool(8, 1.0, 1.0)),
        (fit(CLUSTER, num_gpus=3), Pool(2, 1.0, 3.0)),
        (fit(CLUSTER, actors=3, num_cpus=8), Pool(3, 8.0, 1.0)),
    ],
)
def test_what_is_left_open_is_filled_in(pool: Pool, expected: Pool) -> None:
    assert pool == expected


@pytest.mark.parametrize(
    ("nodes", "settings"),
    [
        (LAPTOP, {"actors": 2, "num_cpus": 1}),  # nothing is left for Ray itself, which would wait for ever
        (LAPTOP, {"actors": 1, "num_gpus": 1}),
        (EIGHT_GPUS, {"actors": 9}),
        (CLUSTER, {"actors": 3, "num_gpus": 3}),  # nine GPUs of eight
        (CLUSTER, {"num_gpus": 8}),  # no node has eight
        (CLUSTER, {"actors": 9, "num_cpus": 8}),  # nine times eight CPUs are there, but the first node has no GPU
    ],
)
def test_actors_that_do_not_fit_are_refused(nodes: list[Mapping[str, float]], settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="do not fit into this cluster"):
        fit(nodes, **settings)


def test_a_pool_shrinks_with_its_cluster() -> None:
    pool = fit(CLUSTER)
    assert left_of(pool, list(CLUSTER)) == pool
    assert left_of(pool, list(CLUSTER[:2])) == Pool(4, 1.0, 1.0)
    assert left_of(pool, list(CLUSTER[:1])) == Pool(1, 1.0, 1.0)


def test_the_refusal_says_how_many_fit() -> None:
    with pytest.raises(ConfigError, match=r"9 actors with 1 GPUs and 1 CPUs each .* 1 nodes with 8 GPUs and 96 CPUs .* holds 8"):
        fit(EIGHT_GPUS, actors=9)


def test_without_ray_the_message_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: object) -> object:
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'")
        return real(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match=r"pip install 'trimtab\[ray\]', or use --executor local"):
        import_ray()


def test_ray_client_is_refused_with_the_way_around() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="ray job submit"), connected("ray://head:10001"):
        pass


def test_only_the_threads_that_run_a_data_set_are_waited_for() -> None:
    end = threading.Event()
    done = []

    def works() -> None:
        end.wait(0.2)
        done.append(True)

    def stopped() -> None:
        threading.Thread(target=end.wait, args=(60,), name="data-usage-metrics-poller", daemon=True).start()
        threading.Thread(target=works, name="StreamingExecutor-1", daemon=True).start()
        raise KeyError("the message")

    threading.Thread(target=end.wait, args=(60,), name="StreamingExecutor-of-somebody-else", daemon=True).start()
    start = time.monotonic()
    with pytest.raises(KeyError, match="the message"), threads_joined():
        stopped()
    assert done
    assert time.monotonic() - start < 20
    end.set()


def test_a_thread_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ray_executor, "JOIN_S", 0.1)
    end = threading.Event()
    with threads_joined():
        threading.Thread(target=end.wait, args=(60,), name="ray-data-metadata-prefetch", daemon=True).start()
    assert "ray-data-metadata-prefetch of Ray still runs" in caplog.text
    end.set()
