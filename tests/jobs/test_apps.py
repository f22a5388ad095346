"""Apps of several jobs on one cluster."""

import asyncio
import time
from collections import Counter

import pytest
from ray import serve
from ray.serve.config import RequestRouterConfig

from das_lib.errors import DasError
from ray_jobs.apps import LOOK_S, ROUND_ROBIN, app_name, await_app, running, since_running

pytestmark = pytest.mark.ray


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Answer:
    def __init__(self, text):
        self.text = text

    def __call__(self):
        return self.text


def test_a_job_has_its_app_whenever_it_is_run_and_no_other_job_s():
    assert app_name("asr", "s3://a/out") == app_name("asr", "s3://a/out")
    others = {app_name("asr", "s3://a/out2"), app_name("llm", "s3://a/out")}
    assert app_name("asr", "s3://a/out") not in others


def test_a_job_that_ends_leaves_the_other_s_app_and_the_last_ends_serve(two_cpus):
    serve.start(proxy_location="Disabled")
    one, other = app_name("asr", "one"), app_name("asr", "other")
    with running(Answer.bind("one"), one):
        with running(Answer.bind("other"), other):
            assert serve.get_app_handle(other).remote().result() == "other"
        assert set(serve.status().applications) == {one}
        assert serve.get_app_handle(one).remote().result() == "one"
    assert not serve.status().applications


@serve.deployment(
    num_replicas=2,
    max_ongoing_requests=200,
    request_router_config=RequestRouterConfig(**ROUND_ROBIN),
    ray_actor_options={"num_cpus": 0.1},
)
class Slow:
    async def __call__(self):
        await asyncio.sleep(0.5)
        return serve.get_replica_context().replica_id.unique_id


def test_requests_that_come_all_at_once_are_shared_among_replicas(two_cpus):
    serve.start(proxy_location="Disabled")
    name = app_name("asr", "slow")
    with running(Slow.bind(), name):
        handle = serve.get_app_handle(name)
        handle.remote().result()  # of the one that answers, Serve's own router knows it is idle
        asked = [handle.remote() for _ in range(100)]
        shares = Counter(one.result() for one in asked)
    assert shares.total() == 100
    assert min(shares.values()) >= 45  # in turn, but routed by more than one task at a time
    assert len(shares) == 2


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Late:
    def __init__(self, error):
        if error:
            raise ValueError(error)
        time.sleep(2)

    def __call__(self):
        return "there"


def test_who_does_not_wait_for_replicas_hears_when_they_are_there(two_cpus):
    serve.start(proxy_location="Disabled")
    name = app_name("asr", "late")
    with running(Late.bind(""), name, wait=False):
        running_s = since_running(name)
        assert running_s() == 0
        await_app(name)
        assert serve.get_app_handle(name).remote().result() == "there"
        time.sleep(2 * LOOK_S)
        assert running_s() > 0


def test_replicas_that_cannot_start_are_no_reason_to_wait(two_cpus):
    serve.start(proxy_location="Disabled")
    name = app_name("asr", "never")
    with (
        running(Late.bind("no such adapter"), name, wait=False),
        pytest.raises(DasError, match=r"the replicas cannot start.*no such adapter"),
    ):
        await_app(name)
