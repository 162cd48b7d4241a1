"""The page as a whole: self-contained, escaped, and true to the files it was made of."""

import json
from html.parser import HTMLParser

import pytest
from PIL import Image

from jaxrl.reports.page import write_report
from jaxrl.reports.page.collected import collect, groups, outcome
from jaxrl.reports.page.commands import typed
from jaxrl.types import InputError

EVIL = '<script>alert("1")</script><img src="http://elsewhere/x.png">'
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Tags with their attributes, the text of all but styles and scripts, and rows of tables; tags must nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open, self.rows = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, name):
        (found,) = [row[1:] for row in self.rows if row[0] == name]
        return found


def made(folder, seed=0, result=True, rows=None, **config):
    """A run's directory, by hand."""
    folder.mkdir(parents=True)
    about = {"seed": seed, "given": {}, "command": ["/usr/bin/python3", "/home/me/jaxrl/experiments/train.py", "ppo/x"]}
    about |= {"git": "abc-dirty", "jax": "1.2.3", "platform": "cpu", "cores": 2, "device": "cpu", "devices": 1}
    (folder / "run.json").write_text(json.dumps(about))
    config = {"algorithm": {"name": "ppo", "total_steps": 20}, "env": {"name": "gymnax/CartPole-v1"}} | config
    (folder / "config.yaml").write_text(json.dumps(config))  # which is YAML, too
    if rows is None:
        rows = [{"step": s, "episode_return": s + seed, "invalid_steps": 0.0, "loss_of_mine": 1.0} for s in (10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    timing = [{"step": row["step"], "train_seconds": 1.0, "steps_per_second": 10.0} for row in rows]
    (folder / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timing))
    if result:
        figures = {"return": 100.0 + seed, "zero_action_return": 9.0, "random_return": 20.0, "run_dir": str(folder)}
        (folder / "result.json").write_text(json.dumps(figures if result is True else result))
    return collect(folder, about)


def page_of(tmp_path, *records):
    return Page(write_report(tmp_path / "report.html", records).read_text(encoding="utf-8"))


def text_of(page):
    return " ".join(" ".join(page.text).split())


def test_nothing_is_fetched_from_elsewhere_and_a_phone_is_told_its_width(tmp_path):
    record = made(tmp_path / "run")
    Image.new("RGB", (4, 4)).save(tmp_path / "run" / "animation.gif")
    page = page_of(tmp_path, collect(record.run_dir, record.about))
    for tag, attributes in page.tags:
        assert tag not in ("link", "object", "embed", "base")
        assert all(not (attributes.get(name) or "").startswith(("http", "//")) for name in ("src", "href", "srcset"))
        assert tag != "script" or "src" not in attributes
        assert tag != "a" or attributes["href"].startswith("#")
        assert tag != "img" or (attributes["src"].startswith("data:image/gif;base64,") and attributes["alt"])
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    names = [tag for tag, _ in page.tags]
    assert {"header", "nav", "main", "section", "h1", "h2"} <= set(names)
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert all(attributes["href"][1:] in targets for tag, attributes in page.tags if tag == "a")
    assert names.count("svg") == names.count("title") - 1 + sum(a.get("aria-hidden") == "true" for _, a in page.tags)
    text = (tmp_path / "report.html").read_text().replace("http://www.w3.org", "")
    assert "http" not in text.replace("&lt;img src=&quot;http://elsewhere", "")


def test_whatever_a_user_wrote_is_text(tmp_path):
    rows = [{"step": 1, EVIL: 1.0, "loss": 1.0}]
    config = {"algorithm": {"name": EVIL, EVIL: EVIL}, "env": {"name": EVIL}}
    record = made(tmp_path / "a<b>&", rows=rows, result={EVIL: 1.0, "diverged": EVIL}, **config)
    about = {**record.about, "git": EVIL, "jax": EVIL, "command": ["python", EVIL, EVIL], "given": {EVIL: {}}}
    samples = [{"step": s, "samples": [{"prompt": EVIL, "completion": f"{EVIL} {s}"}]} for s in (0, 9)]
    (record.run_dir / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (record.run_dir / "metrics.jsonl").open("a").write("{broken\n")
    page = page_of(tmp_path, collect(record.run_dir, about), made(tmp_path / "b"))
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and "img" not in names and "b" not in names[: names.index("section")]
    assert text_of(page).count('<script>alert("1")</script>') > 10


def test_the_samples_before_and_after_stand_side_by_side(tmp_path):
    record = made(tmp_path / "run", algorithm={"name": "dpo"}, lm={"name": "smollm2-135m"}, env={})
    said = [(0, "one"), (5, "middle"), (9, "two")]
    rows = [{"step": s, "samples": [{"prompt": "ask", "completion": text}]} for s, text in said]
    (record.run_dir / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = text_of(page_of(tmp_path, collect(record.run_dir, record.about)))
    assert "DPO on smollm2-135m" in text and "ask step 0 one step 9 two" in text and "middle" not in text


def test_seeds_of_one_config_are_a_group_and_others_are_set_apart(tmp_path):
    runs = [made(tmp_path / f"a{seed}", seed) for seed in (10, 2)]
    runs += [made(tmp_path / name, seed, more={"x": x}) for name, seed, x in (("b", 0, 0.1), ("c", 1, 0.2))]
    found = groups(runs)
    assert [[r.seed for r in group.records] for group in found] == [[2, 10], [0], [1]]
    assert [group.name for group in found] == ["A", "B: more.x = 0.1", "C: more.x = 0.2"]
    page = page_of(tmp_path, *runs)
    assert page.row("more.x") == ["–", "0.1", "0.2"]
    # 102 and 110: s = 5.657, t(0.975, 1) = 12.706, half = 12.706 · 5.657 / √2 = 50.8
    assert page.row("return") == ["106 ± 50.8", "102", "110", "100", "101"]
    assert page.row("return of the zero action")[1] == "9"
    given = runs[0]._replace(about={**runs[0].about, "given": {"env": {"is": "my:Env", "sha256": "0"}}})
    assert len(groups([runs[0], given])) == 2


def test_the_returns_of_doing_nothing_are_drawn_for_runs_in_one_environment_only(tmp_path):
    here = made(tmp_path / "a")
    more = made(tmp_path / "b", 1, env={"name": "gymnax/CartPole-v1", "num_envs": 99})
    there = made(tmp_path / "c", 1, env={"name": "gymnax/CartPole-v1", "time_limit": 9})
    drawn = [page_of(tmp_path, here, other).text.count("zero action") for other in (more, there)]
    assert drawn == [1, 0]


def test_bad_numbers_are_counted_plainly(tmp_path):
    rows = [
        {"step": 100, "invalid_steps": 0.01, "skipped_updates": 0.0, "value_loss": None, "episode_return": None},
        {"step": 200, "invalid_steps": 0.0, "skipped_updates": 0.0, "value_loss": 1.0, "episode_return": 3.0},
    ]
    page = page_of(tmp_path, made(tmp_path / "run", rows=rows, result={"invalid_steps_in_training": 1}))
    assert page.row("environment steps that were not finite, in training") == ["1: 0.500%, in 1 of 2 rows"]
    assert page.row("gradient steps skipped, as they were not finite") == ["0 of 2 rows"]
    assert page.row("logged numbers that are not finite") == ["1 of 8 (value_loss 1)"]
    assert page.row("rows during which no episode ended") == ["1 of 2"]
    text = text_of(page)
    assert "Value loss 1 value not finite" in text and "Episode return 1 value" not in text


def test_how_a_run_ended_is_said(tmp_path):
    ends = {
        "finished": made(tmp_path / "a"),
        "diverged": made(tmp_path / "b", result={"diverged": "learner.x is not finite"}),
        "unfinished": made(tmp_path / "c", result=False),
        "stopped": made(tmp_path / "d", result=False),
    }
    (tmp_path / "d" / "partial.npz").touch()
    assert {word: outcome(record)[0] for word, record in ends.items()} == {word: word for word in ends}
    back = {"went_back": {"why": "learner.x is not finite after 9 steps", "to": 5, "backoff": 1.0}}
    ends["finished"] = ends["finished"]._replace(about={**ends["finished"].about, **back})
    text = text_of(page_of(tmp_path, *ends.values()))
    assert "a went back, once, to step 5: learner.x is not finite after 9 steps" in text
    assert "1 finished, 1 diverged, 1 unfinished, 1 stopped" in text
    assert "b: learner.x is not finite" in text and "after 20 of 20 environment steps that are logged" in text


def test_a_run_that_did_not_finish_shows_its_last_evaluation_and_no_mean_takes_it_in(tmp_path):
    rows = [{"step": s, "eval_return": float(s)} for s in (1, 2)]
    page = page_of(tmp_path, made(tmp_path / "a"), made(tmp_path / "b", 1, result=False, rows=rows))
    assert page.row("return") == ["100", "100", "2 so far"]
    assert page.row("outcome") == ["", "finished", "unfinished"]


def test_damaged_files_are_left_out_and_named(tmp_path):
    record = made(tmp_path / "run")
    file = tmp_path / "run" / "metrics.jsonl"
    lines = file.read_text().splitlines()
    file.write_bytes("\n".join([lines[0], lines[1][:9], "[]", lines[1]]).encode() + b'\n{"step": \xff}\n')
    (tmp_path / "run" / "result.json").write_text("")
    again = collect(record.run_dir, record.about)
    assert [row["step"] for row in again.rows] == [10, 20] and again.result is None
    assert [note.split(" of ")[0] for note in again.notes[:3]] == ["line 2", "line 3", "line 5"]
    text = text_of(page_of(tmp_path, again))
    assert f"line 2 of {file} cannot be read, and is left out" in text
    assert f"{tmp_path / 'run' / 'result.json'} cannot be read" in text and "unfinished" in text


def test_a_run_without_metrics_has_a_sentence(tmp_path):
    page = page_of(tmp_path, made(tmp_path / "run", rows=[], result=False))
    assert "No metrics have been logged" in text_of(page) and "figure" not in [tag for tag, _ in page.tags]


def test_every_metric_is_shown_known_or_not(tmp_path):
    text = text_of(page_of(tmp_path, made(tmp_path / "run")))
    assert "Other metrics (1)" in text and "loss_of_mine ends at 1" in text and "Episode return ends at" not in text
    assert "training, actions sampled ends at 20" in text and "Throughput, steps a second ends at 10" in text


def test_an_animation_that_is_too_large_is_named_or_another_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxrl.reports.page.sections.MOST_BYTES", 20)
    made(tmp_path / "run")
    gif, page = (tmp_path / "run" / f"animation.{suffix}" for suffix in ("gif", "html"))
    gif.write_bytes(b"x" * 21)
    record = collect(tmp_path / "run", made(tmp_path / "other").about)
    assert "animation.gif is too large to be put into this page" in text_of(page_of(tmp_path, record))
    page.write_text("<p>a body</p>")
    record = collect(tmp_path / "run", record.about)
    frames = [a for tag, a in page_of(tmp_path, record).tags if tag == "iframe"]
    assert [(f["srcdoc"], f["sandbox"]) for f in frames] == [("<p>a body</p>", "allow-scripts")]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/v/bin/python", "experiments/train.py", "ppo/cartpole", "--run-dir", "r 1", "--seed", "3"],
         "scripts/run experiments/train.py ppo/cartpole --seed 3"),
        (["/v/bin/python", "/home/me/jaxrl/experiments/train.py", "/home/me/jaxrl/configs/ppo/x.yaml"],
         "scripts/run experiments/train.py configs/ppo/x.yaml"),
        (["/v/bin/python", "/v/bin/jaxrl", "train", "a b.yaml", "--run-dir=x", "--resume"], "jaxrl train 'a b.yaml'"),
        (["/v/bin/python", "/home/me/jaxrl/__main__.py", "train", "x"], "jaxrl train x"),
        (["/v/bin/python3.11", "mine.py", "--run-dir", "x"], "python3.11 mine.py --run-dir x"),
        (None, None),
    ],
)  # fmt: skip
def test_the_command_is_as_a_person_would_type_it(command, expected):
    assert typed({"command": command}) == expected


def test_the_page_says_how_to_run_it_again_and_what_the_command_does_not_say(tmp_path):
    record = made(tmp_path / "my run")
    given = record._replace(about={**record.about, "given": {"env": {"is": "my:Env", "sha256": "0"}}})
    text = text_of(page_of(tmp_path, given))
    assert "scripts/run experiments/train.py ppo/x" in text and f"jaxrl resume '{tmp_path / 'my run'}'" in text
    assert "It was also given, in Python: env." in text and "changes that were not committed" in text


def test_the_page_says_what_was_changed_midway_and_by_which_command(tmp_path):
    record = made(tmp_path / "run")
    command = ["/v/bin/python", "/v/bin/jaxrl", "train", "ppo/x", "--run-dir", "r", "--resume", "--accept-changes"]
    changes = [{"changes": ["total_steps = 10, not 15"]}, {"changes": ["total_steps = 15, not 20"], "command": command}]
    text = text_of(page_of(tmp_path, record._replace(about={**record.about, "changes": changes})))
    assert "total_steps = 10, not 15 (config-1.yaml is it before)" in text
    assert "total_steps = 15, not 20 (config-2.yaml is it before)" in text
    assert "jaxrl train ppo/x --run-dir r --resume --accept-changes" in text


def test_a_seed_that_is_there_twice_counts_once(tmp_path):
    runs = [made(tmp_path / name, seed) for name, seed in (("ref", 0), ("kill", 0), ("s1", 1))]
    found = groups(runs)
    assert [[r.run_dir.name for r in group.records] for group in found] == [["ref", "s1"], ["kill"]]
    assert [group.name for group in found] == [f"A: {tmp_path / 'ref'}, {tmp_path / 's1'}", f"B: {tmp_path / 'kill'}"]
    page = page_of(tmp_path, *runs)
    assert page.rows[0][1:] == ["A, n = 2", "A, seed 0", "A, seed 1", "B, seed 0"]
    page = page_of(tmp_path, *runs[:2])
    assert page.row("return") == ["100", "100"], "no mean of one seed with itself"


def test_a_run_is_named_once(tmp_path):
    record = made(tmp_path / "run")
    with pytest.raises(InputError, match="run is named twice; name each run once"):
        write_report(tmp_path / "report.html", [record, record._replace(run_dir=tmp_path / "x" / ".." / "run")])
    with pytest.raises(InputError, match="name at least one run"):
        write_report(tmp_path / "report.html", [])
    assert not (tmp_path / "report.html").exists()
