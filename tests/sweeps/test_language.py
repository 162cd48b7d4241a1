"""Language models in a sweep: members are what runs of them are, beside each other and in turn."""

import json
import math

import pytest

from jaxrl.algorithms import DPO, KTO, SFT
from jaxrl.cli import command
from jaxrl.cli.sweeping import loader
from jaxrl.data import DataConfig
from jaxrl.lm import LMConfig, save_model
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import finetuning
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import finetune
from jaxrl.settings import replace
from jaxrl.sweeps import Plan, load_member, sweep
from jaxrl.sweeps.table import read
from jaxrl.sweeps.tasks import task
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

ACCURACY = "eval_rewards/accuracy"
SCHEDULE = Schedule(logs=2, evals=1, saves=1)
PLAN = Plan(schedule=SCHEDULE, devices=1)
SUMS = [f"{a}+{b}=" for a in range(5) for b in range(5)]
ROWS = {
    SFT: [{"prompt": sum, "completion": "sum"} for sum in SUMS],
    DPO: [{"prompt": sum, "chosen": "sum", "rejected": "no"} for sum in SUMS],
    KTO: [{"prompt": sum, "completion": ("sum", "no")[i % 2], "label": i % 2 == 0} for i, sum in enumerate(SUMS)],
}
FIELDS = {
    SFT: {"learning_rate": ".001,.01,.03"},
    DPO: {"beta": ".05,.1,.5"},
    KTO: {"beta": ".05,.1,.5"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random model that reads and writes bytes, and rows for each algorithm beside it."""
    folder = tmp_path_factory.mktemp("model")
    config = config_of("llama", vocab_size=259, num_hidden_layers=1)
    save_model(folder / "tiny", config, params_of(config), byte_tokenizer())
    for kind, rows in ROWS.items():
        (folder / f"{kind.__name__}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def small(kind, folder, rank=0, **changes):
    lm = LMConfig(str(folder / "tiny"), lora_rank=rank)
    config = kind(lm=lm, data=DataConfig(str(folder / f"{kind.__name__}.jsonl"), held_out=0.2))
    return replace(config, batch_size=5, max_updates=4, learning_rate=0.01, warmup=0.0, **changes)


def swept(config, fields, run_dir=None, plan=PLAN, **options):
    return sweep(config, fields, plan, run_dir, progress=False, load=loader(config, fields), **options)


def close(one, two, but=()):
    """Rows of two tables or files, to 1e-4."""
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - set(but):
            try:
                x, y = (math.nan if value in ("", None) else float(value) for value in (a[name], b[name]))
                assert x == pytest.approx(y, rel=1e-4, abs=1e-5, nan_ok=True), name
            except ValueError:
                assert a[name] == b[name]


@pytest.mark.parametrize(("kind", "rank"), [(SFT, 0), (KTO, 0), (DPO, 2)])
def test_members_are_what_runs_are_beside_each_other_and_in_turn(folder, tmp_path, monkeypatch, kind, rank):
    config, fields = small(kind, folder, rank), FIELDS[kind]
    plan = replace(PLAN, score=ACCURACY if "beta" in fields else None)
    swept(config, fields, tmp_path / "beside", plan)
    about = json.loads((tmp_path / "beside" / "sweep.json").read_text())
    assert [batch["members"] for batch in about["batches"]] == [[0, 1, 2]]  # one program
    assert (about["unit"]["name"], about["subject"]) == ("rows_seen", str(folder / "tiny"))
    rows = read(tmp_path / "beside" / "table.csv")
    assert [int(row["step"]) for row in rows if row["member"] == "2"] == [0, 10, 20]

    (field, spec), *_ = fields.items()
    value = float(spec.split(",")[2])
    finetune(replace(config, **{field: value}), run_dir=tmp_path / "alone", schedule=SCHEDULE, progress=False)
    for mine, alone in zip(rows[2::3], read_metrics(tmp_path / "alone" / "metrics.jsonl"), strict=True):
        for name, x in alone.items():
            own = mine["learning_rate_metric" if (name, field) == ("learning_rate", "learning_rate") else name]
            expected = math.nan if x is None else x
            assert float(own) == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True), name
        ranked_by = mine[ACCURACY] if plan.score else mine["eval_loss"] and str(-float(mine["eval_loss"]))
        assert mine["score"] == ranked_by

    monkeypatch.setattr("jaxrl.sweeps.tasks.fitting", lambda group, devices, budget: 1)
    swept(config, fields, tmp_path / "in_turn", plan)
    batches = json.loads((tmp_path / "in_turn" / "sweep.json").read_text())["batches"]
    assert [batch["members"] for batch in batches] == [[0], [1], [2]]
    by = lambda row: (int(row["member"]), int(row["step"]))  # noqa: E731
    close(sorted(rows, key=by), sorted(read(tmp_path / "in_turn" / "table.csv"), key=by))


def test_a_start_that_cannot_be_is_refused(folder, tmp_path, monkeypatch):
    """Of the first config alone: what the loss of ipo starts at depends on beta."""
    fields, plan = {"beta": ".1,.5"}, replace(PLAN, score="-eval_loss")  # as it was asked for
    swept(small(DPO, folder, loss="ipo"), fields, tmp_path / "ipo", plan)
    judged = [row for row in read(tmp_path / "ipo" / "table.csv") if row["score"]]
    assert judged and all(row["score"] == str(-float(row["eval_loss"])) for row in judged)
    monkeypatch.setattr("jaxrl.algorithms.dpo.start_tolerance", lambda config: -1.0)
    with pytest.raises(ValueError, match="the ipo loss starts at 25.0.*, not 25.0.*: policy and reference differ"):
        swept(small(DPO, folder, loss="ipo"), fields, tmp_path / "refused", plan)


def test_losses_that_are_defined_otherwise_are_not_ranked_by_themselves(folder, tmp_path):
    """With a small beta every loss of DPO is near ln 2, however well the model has learned."""
    for kind, field in ((DPO, "beta"), (DPO, "loss"), (DPO, "label_smoothing"), (KTO, "desirable_weight")):
        spec = "dpo,ipo" if field == "loss" else ".1,.2"
        with pytest.raises(ValueError, match=f"sweep.{field}: it is part of the loss itself.*--score {ACCURACY}"):
            swept(small(kind, folder), {field: spec}, tmp_path / "sweep")
    with pytest.raises(ValueError, match=f"score = '-loss' is no figure of an evaluation; .*{ACCURACY}"):
        swept(small(DPO, folder), {}, tmp_path / "sweep", replace(PLAN, score="-loss"))
    assert not (tmp_path / "sweep").exists()


def test_one_that_is_resumed_has_the_model_and_the_rows_that_it_had(folder, tmp_path):
    config = small(SFT, folder)
    swept(config, {}, tmp_path / "sweep")
    rows = folder / "SFT.jsonl"
    before = rows.read_text()
    rows.write_text(before.replace("1+2=", "1+2 is"))
    with pytest.raises(ValueError, match=r"was begun with loaded = \[\"network .*, not \[\"network"):
        swept(config, {}, tmp_path / "sweep", resume=True)
    rows.write_text(before)
    swept(config, {}, tmp_path / "sweep", resume=True)


@pytest.fixture
def loads(monkeypatch):
    """The names of the models that are loaded."""
    names, load_model = [], finetuning.load_model

    def counted(name, **options):
        names.append(name)
        return load_model(name, **options)

    monkeypatch.setattr(finetuning, "load_model", counted)
    return names


def test_the_command_line_loads_a_model_once_for_all_groups(folder, tmp_path, loads, capsys):
    own = ["--path", folder / "SFT.jsonl", "--name", folder / "tiny", "--held-out", ".2", "--batch-size", "5"]
    quick = ["--max-updates", "2", "--logs", "1", "--evals", "1", "--saves", "1", "--run-dir", tmp_path / "a"]
    command.main([str(word) for word in ["sweep", "sft", *own, *quick, "--sweep.lora-rank", "0,2,4"]])
    assert loads == [str(folder / "tiny")]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["members"] == 3
    ranks = {row["lora_rank"]: row["eval_loss"] for row in read(tmp_path / "a" / "table.csv") if row["step"] == "10"}
    assert len(set(ranks.values())) == len(ranks) == 3


def test_models_and_rows_that_differ_are_loaded_each(folder, loads):
    rows = (folder / "SFT.jsonl").read_text()
    (folder / "other.jsonl").write_text(rows.replace("sum", "difference"))
    load = loader(small(SFT, folder), {})
    base = small(SFT, folder)
    first = load(base)[1]
    assert load(replace(base, batch_size=4))[1] is first and load(replace(base, lora_rank=2))[1] is first
    other = load(replace(base, path=str(folder / "other.jsonl")))[1]
    assert len(loads) == 2 and other["data"].train[0].tokens.shape != first["data"].train[0].tokens.shape
    assert load(replace(base, dtype="bfloat16"))[1]["network"].dtype != first["network"].dtype


def test_an_adapter_that_is_continued_brings_its_settings(folder, tmp_path):
    lm = LMConfig(str(folder / "tiny"), lora_rank=2, lora_alpha=3.0)
    config = replace(small(SFT, folder), lm=lm, max_updates=1)
    tuned = finetune(config, run_dir=tmp_path / "run", schedule=SCHEDULE, progress=False, adapter_only=True)
    config = replace(small(SFT, folder), lm=LMConfig(str(tuned.folder), lora_continue=True))
    formed = task(config, FIELDS[SFT], PLAN, loader(config, FIELDS[SFT])).form([])
    assert [member.config.lm.lora_alpha for group in formed for member in group.members] == [3.0] * 3
    assert [member.config.optimizer.learning_rate for group in formed for member in group.members] == [
        0.001,
        0.01,
        0.03,
    ]
    with pytest.raises(ValueError, match="sweep.lora_alpha: with lm.lora_continue it is the adapter's own"):
        loader(config, {"lora_alpha": "1,2"})


def test_its_members_are_not_read_back(folder, tmp_path):
    swept(replace(small(SFT, folder), max_updates=1), {}, tmp_path / "sweep")
    with pytest.raises(ValueError, match="learned from rows, and its members are not read back; jaxrl finetune makes"):
        load_member(tmp_path / "sweep", 0)
