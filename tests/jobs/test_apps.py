"""Apps of several jobs on one cluster."""

import pytest
from ray import serve

from ray_jobs.apps import app_name, running

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
