"""The page of a dataset, read as its users read it."""

import io
import json
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from das_lib.dataset import Dataset
from das_lib.errors import DasError, Reject
from das_lib.inspection.page import histogram, page
from das_lib.inspection.read import read_dataset
from das_lib.rows import Outcome
from das_lib.storage import Folder
from ray_jobs.cli import main
from schemas.speech import SPEECH

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def flac() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(1600), 16000, format="FLAC")
    return buffer.getvalue()


def write_speech(folder, blocks: int, *, finish: bool = True) -> Dataset:
    dataset = Dataset(Folder(str(folder)), SPEECH, "speech", "music")
    dataset.begin({"stage": "speech", "name": "music", "params": {"voice": "</pre><b>joe"}})
    for block in range(blocks):
        rows = [
            {
                "id": f"{block}-{n}",
                "domain": "music",
                "text": f"Play <b>song</b> block{block} {n} & more",
                "spoken": "s",
                "split": "train",
                "audio": flac(),
                "sample_rate_hz": 16000,
                "num_samples": 16000 * (1 + n % 5),
                "loudness": None if n == 0 else -20.0 - n,
                "cer": None,
                "engine": "e",
                "voice": "joe",
            }
            for n in range(10)
        ]
        rejects = [Reject(f"{block}-x{n}", "misheard", f"<i>heard</i> {n}") for n in range(4)]
        rejects += [Reject(f"{block}-y", "silent", "")]
        dataset.commit(f"{block:05d}", Outcome(pa.Table.from_pylist(rows, schema=SPEECH), rejects))
    if finish:
        dataset.finish(blocks * 15, 75.0, {})
    return dataset


def test_what_is_shown_adds_up_and_the_sample_is_fair_and_the_same(tmp_path):
    write_speech(tmp_path / "d", 4)
    shown = read_dataset(str(tmp_path / "d"), 12)
    assert (shown.summary.rows_in, shown.summary.rows_out, shown.finished) == (60, 40, True)
    assert shown.summary.reasons == {"misheard": 16, "silent": 4}
    assert [(reason, len(rows)) for reason, rows in shown.rejects.items()] == [
        ("misheard", 5),
        ("silent", 4),
    ]
    assert {title: len(values) for title, values in shown.measures.items()} == {
        "words a text": 40,
        "seconds a recording": 40,
        "loudness, LUFS": 36,
    }
    ids = [row["id"] for row in shown.rows]
    assert len(set(ids)) == 12
    assert len({i.split("-")[0] for i in ids}) > 2, "not of the first blocks alone"
    assert [row["id"] for row in read_dataset(str(tmp_path / "d"), 5).rows] == ids[:5]


def test_an_unfinished_or_empty_dataset_has_a_page_and_another_folder_has_none(tmp_path):
    write_speech(tmp_path / "d", 1, finish=False)
    shown = read_dataset(str(tmp_path / "d"), 100)
    assert not shown.finished
    assert "(unfinished)" in page(shown)
    empty = Dataset(Folder(str(tmp_path / "e")), SPEECH, "speech", "music")
    empty.begin({"stage": "speech", "name": "music"})
    assert "No rows." in page(read_dataset(str(tmp_path / "e"), 10))
    with pytest.raises(DasError, match="is no dataset"):
        read_dataset(str(tmp_path), 10)


def test_nothing_of_the_data_is_taken_for_html(tmp_path):
    write_speech(tmp_path / "d", 1)
    content = page(read_dataset(str(tmp_path / "d"), 10))
    assert "<b>song</b>" not in content
    assert "&lt;b&gt;song&lt;/b&gt;" in content
    assert "<i>heard" not in content
    assert "</pre><b>" not in content


def test_a_histogram_counts_every_value_once():
    drawn = histogram("x", [1, 1, 2, 5])
    assert drawn.count("<rect") == 5
    assert "1 to 2: 2</title>" in drawn
    assert sum(int(part.split("<")[0]) for part in drawn.split(": ")[1:]) == 4
    assert "median" in histogram("one value", [0.25])


def test_the_command_writes_the_page(tmp_path, capsys):
    write_speech(tmp_path / "d", 1)
    out = tmp_path / "i.html"
    assert main(["inspect", str(tmp_path / "d"), "-o", str(out), "--sample", "3"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_text().count("<audio") == 3
    assert main(["inspect", str(tmp_path), "-o", str(out)]) == 2
    assert main(["inspect", str(tmp_path / "d"), "--sample", "-1"]) == 2


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.slow
def test_a_browser_searches_the_sample_and_reads_the_recordings(tmp_path):
    write_speech(tmp_path / "d", 2)
    content = page(read_dataset(str(tmp_path / "d"), 20))
    probe = """<script>
    const search = document.getElementById("search");
    const visible = () => rows.filter(row => row.getClientRects().length).length;
    const state = {all: visible(), errors: []};
    window.onerror = message => state.errors.push(message);
    search.value = "SONG block1"; search.dispatchEvent(new Event("input"));
    state.some = visible(); state.told = document.getElementById("found").value;
    search.value = "nowhere"; search.dispatchEvent(new Event("input"));
    state.none = visible();
    const audio = document.querySelector("audio");
    const done = length => {
      document.body.innerHTML = "";
      document.title = JSON.stringify({...state, length});
    };
    audio.addEventListener("loadedmetadata", () => done(audio.duration));
    audio.addEventListener("error", () => done(-1));
    audio.load();
    audio.preload = "auto";
    </script></body>"""
    (tmp_path / "i.html").write_text(content.replace("</body>", probe))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=10000", f"file://{tmp_path / 'i.html'}"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = json.loads(dom.split("<title>")[1].split("</title>")[0])
    assert found["errors"] == []
    assert (found["all"], found["some"], found["none"]) == (20, 10, 0)
    assert found["told"] == "10"
    assert found["length"] == pytest.approx(0.1)
