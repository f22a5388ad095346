from das_lib.train.systems import (
    Assembly,
    assemblies,
    baseline_systems,
    split_system,
)


def test_methods_make_a_system_a_domain_or_one_of_all():
    methods = ["lora-multi", "ft-decoder", "ft-decoder-last-n-multi"]
    assert baseline_systems(methods, ["music", "sports"]) == [
        "lora:multi",
        "ft-decoder:music",
        "ft-decoder:sports",
        "ft-decoder-last-n:multi",
    ]
    assert split_system("ft-decoder-last-n:multi") == ("ft-decoder-last-n", "multi")


def test_the_adapters_transcribe_together_and_each_baseline_alone():
    adapters = {"music": "/a/music", "sports": "/a/sports"}
    baselines = {"lora:multi": "/b/lora", "ft-decoder:music": "/b/ft"}
    together, lora, whole = assemblies(adapters, baselines, [0.1])
    assert together.model is None
    assert together.adapters == adapters
    assert together.systems == {
        "base": 0,
        "lora:music": 1,
        "lora:sports": 2,
        "das": None,
        "das@0.1": 0.1,
    }
    assert lora == Assembly(None, {"multi": "/b/lora"}, {"lora:multi": 1})
    assert whole == Assembly("/b/ft", {}, {"ft-decoder:music": 0})
    assert together.only(["das", "base", "x"]).systems == {"base": 0, "das": None}
