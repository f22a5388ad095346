"""Ray Train around the fitting: parallel domains, a failure, and going on from a checkpoint."""

from pathlib import Path

import psutil
import pytest

from das_lib.errors import DasError, StorageError
from das_lib.train.fit import fit
from das_lib.train.job import FitJob

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_failed_training_is_named_and_the_others_finish(two_cpus, make_features, make_job):
    from ray_jobs.fit import fit_all

    good = make_job(make_features(10, name="good"), system="lora:music")
    (broken,) = make_features(10, name="bad")
    Path(broken).write_bytes(Path(broken).read_bytes()[:200])
    few = make_job(make_features(3, name="few"), system="lora:weather", max_failures=2)
    seen: list[tuple[str, int, int]] = []
    results = fit_all(
        [make_job([broken], system="ft-decoder:sports"), good, few],
        2,
        lambda system, step, total, metrics: seen.append((system, step, total)),
    )
    assert isinstance(results["ft-decoder:sports"], StorageError)
    assert "bad-0.parquet" in str(results["ft-decoder:sports"])
    assert isinstance(results["lora:weather"], DasError)
    assert "train.batch_size=4 is more than the 3 utterances" in str(results["lora:weather"])
    assert isinstance(results["lora:music"], dict)
    assert [m["epoch"] for m in results["lora:music"]["history"]] == [1, 2]
    assert seen[-1] == ("lora:music", 6, 6) or ("lora:music", 6, 6) in seen
    assert (Path(good.out_dir) / "adapter_model.safetensors").is_file()
    assert not Path(few.out_dir).exists()


def test_two_workers_equal_one_and_a_second_call_repeats_nothing(
    two_cpus, worker_errors, make_features, make_job
):
    from ray_jobs.fit import fit_all

    files = make_features(9)
    alone: FitJob = make_job(files, system="lora:alone")
    expected = fit(alone, on_epoch=lambda fitter: None)
    job = make_job(files, system="lora:pair", workers_per_domain=2)
    results = fit_all([job], 1, lambda *_: None)["lora:pair"]
    assert isinstance(results, dict)
    losses = [m["loss"] for m in results["history"]]
    assert losses == pytest.approx([m["loss"] for m in expected["history"]], abs=1e-5)
    again = fit_all([job], 1, lambda *_: None)["lora:pair"]
    assert again == results  # the same seconds, too: no epoch ran again
    # No controller's watchdog hung on a State API that is not this cluster's.
    assert not any("Failed to stop PlacementGroupCleaner" in text for text in worker_errors())


def test_a_killed_worker_goes_on_from_the_last_checkpoint(two_cpus, make_features, make_job):
    from ray_jobs.fit import fit_all

    files = make_features(9)
    alone: FitJob = make_job(files, system="lora:alone", epochs=20)
    expected = fit(alone, on_epoch=lambda fitter: None)
    job = make_job(files, system="lora:killed", epochs=20, max_failures=1)
    killed: list[int] = []

    def kill(system: str, step: int, total: int, metrics: dict[str, float]) -> None:
        if killed or not 6 <= step < total - 6:
            return
        for process in psutil.Process().children(recursive=True):
            if "ray::RayTrainWorker" in process.cmdline():
                process.kill()
                killed.append(step)

    results = fit_all([job], 1, kill)["lora:killed"]
    assert killed, "no worker was found while it trained"
    assert isinstance(results, dict), results
    assert results["steps"] == expected["steps"] == 60
    losses = [m["loss"] for m in results["history"]]
    assert losses == [m["loss"] for m in expected["history"]]
    assert [m["epoch"] for m in results["history"]] == list(range(1, 21))
