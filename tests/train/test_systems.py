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


def test_all_that_hears_with_the_bases_encoder_transcribes_together():
    adapters = {"music": "/a/music", "sports": "/a/sports"}
    beside = {"lora:multi": "/b/lora", "ft-decoder:music": "/b/ft"}
    baselines = {**beside, "ft-encoder-decoder:music": "/b/all"}
    together, whole = assemblies(adapters, baselines, [0.1])
    assert together.model is None
    assert together.adapters == adapters
    assert together.systems == {
        "base": 0,
        "lora:music": 1,
        "lora:sports": 2,
        "das": None,
        "das@0.1": 0.1,
        "lora:multi": 1,
        "ft-decoder:music": 0,
    }
    assert together.beside == beside
    assert whole == Assembly("/b/all", {}, {"ft-encoder-decoder:music": 0})
    some = together.only(["das", "base", "ft-decoder:music", "x"])
    assert some.systems == {"base": 0, "das": None, "ft-decoder:music": 0}
    assert some.beside == {"ft-decoder:music": "/b/ft"}
