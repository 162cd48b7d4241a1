"""scripts/on_accelerator.sh as it is called on a machine with an accelerator, at small sizes on this one."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/on_accelerator.sh"
ABOUT = {
    **dict.fromkeys(("python", "jax", "jaxlib", "flax", "optax", "brax", "gymnax"), "1.0"),
    **{"platform": "gpu", "device": "NVIDIA H100 80GB HBM3", "devices": 1, "cores": 2, "model": "EPYC"},
    **{"xla_flags": "", "precision": "default", "date": "2026-01-01", "smoke": False},
}


@pytest.fixture
def accelerator(monkeypatch):
    """The modules of scripts/, which are imported as scripts import each other."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("accelerator")


def call(folder, *argv):
    env = {**os.environ, "PYTHON": sys.executable, "OUT": str(folder)}
    done = subprocess.run([SCRIPT, *argv], capture_output=True, text=True, env=env, timeout=1800)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a smoke run of all parts leaves."""
    folder = tmp_path_factory.mktemp("accelerator")
    status, said = call(folder, "--smoke", "part", "1", "part", "2", "part", "3", "part", "4")
    assert status == 0, said
    return folder


def test_every_row_of_the_smoke_run_is_done_and_told(folder):
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {row["part"] for row in rows.values()} == {1, 2, 3, 4} and len(rows) == 8
    assert {name: row for name, row in rows.items() if row["status"] != "done"} == {}
    table = (folder / "results.md").read_text()
    assert all(f"| {row['part']} | {name} | " in table for name, row in rows.items())
    assert "smoke run" in table and "precision default" in table and "jax 0." in table


def test_what_is_done_is_not_run_again(folder):
    before = (folder / "results.json").read_bytes()
    assert call(folder, "--smoke", "part", "1") == (0, "")
    assert (folder / "results.json").read_bytes() == before


def test_figures_of_small_and_whole_sizes_are_kept_apart(folder):
    status, said = call(folder, "part", "1")
    assert status == 2 and "smoke = True, not False; name another OUT" in said


@pytest.mark.parametrize(
    ("argv", "sentence"), [(("part",), "part needs its number"), (("--fast",), "--fast is no option")]
)
def test_a_wrong_call_is_a_sentence(argv, sentence, tmp_path):
    status, said = call(tmp_path, *argv)
    assert status == 2 and sentence in said


def test_a_row_that_fails_is_kept_with_its_reason_and_the_others_go_on(accelerator, tmp_path, monkeypatch):
    def full():
        raise MemoryError("RESOURCE_EXHAUSTED: 90 GiB\nand more")

    rows = {"large": full, "small": lambda: {"headline": "1 step/s"}}
    monkeypatch.setitem(accelerator.PARTS, 1, lambda asked: rows)
    results = accelerator.Results(tmp_path, ABOUT)
    accelerator.run_part(1, results, accelerator.Asked(True, tmp_path, 1.0), again=False)
    kept = accelerator.Results(tmp_path, ABOUT)
    assert kept.rows["large"]["reason"] == "MemoryError: RESOURCE_EXHAUSTED: 90 GiB"
    assert kept.rows["small"]["status"] == "done"
    assert not kept.wants("large", again=False) and kept.wants("large", again=True)
    assert "| 1 | large | failed: MemoryError" in (tmp_path / "results.md").read_text()


def test_a_row_whose_process_died_is_found_out(accelerator, tmp_path):
    accelerator.Results(tmp_path, ABOUT).put("large", part=1, status="begun")
    kept = accelerator.Results(tmp_path, ABOUT)
    assert kept.rows["large"] == {"part": 1, "status": "failed", "reason": accelerator.DIED}
    with pytest.raises(ValueError, match="device = NVIDIA H100 80GB HBM3, not NVIDIA H200"):
        accelerator.Results(tmp_path, {**ABOUT, "device": "NVIDIA H200"})


def test_no_row_is_begun_without_time(accelerator, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(accelerator.PARTS, 1, lambda asked: {"late": lambda: {"headline": "never"}})
    asked = accelerator.Asked(True, tmp_path, 1.0, began=accelerator.time.monotonic() - 55)
    accelerator.run_part(1, accelerator.Results(tmp_path, ABOUT), asked, again=False)
    assert "no time left for late" in capsys.readouterr().out and not (tmp_path / "results.json").exists()


def test_the_curve_of_a_run_by_hand(accelerator, tmp_path):
    rows = importlib.import_module("accelerator_rows")
    metrics = [{"step": 10, "eval_return": 1000.0}, {"step": 20, "loss": 1.0}, {"step": 30, "eval_return": 5100.0}]
    timing = [{"step": n, "train_seconds": n / 2} for n in (10, 20, 30)]
    for name, lines in ((rows.METRICS, metrics), (rows.TIMING, timing)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = rows.curve(tmp_path)
    at = {"step": 30, "train_seconds": 15.0}
    assert found["reached"] == {"2000": at, "5000": at, "8000": None}
    assert found["headline"] == "return 2000 after 15 s, 5000 after 15 s; best 5100, at step 30"


def test_the_shape_has_as_many_parameters_as_smollm2_and_peaks_are_found(accelerator):
    import jax

    lm = importlib.import_module("accelerator_lm")
    shapes = jax.eval_shape(lm.language_model(lm.SHAPE).init, jax.random.key(0))
    assert lm.size_of(shapes) == 134_515_008
    assert lm.peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12 == lm.peak("NVIDIA H200", "bfloat16")
    assert lm.peak("NVIDIA H100 PCIe", "float32") == 378e12 and lm.peak("cpu", "float32") is None


def test_every_wheel_has_its_pin():
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wheels = [line.strip().lower() for line in (ROOT / "scripts/wheels.txt").read_text().splitlines()]
    assert not {name for name in wheels if name and not name.startswith("#")} - pins
