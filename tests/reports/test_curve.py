"""Pictures of a run."""

import json

import matplotlib.image

from jaxrl.reports.curve import learning_curve
from jaxrl.types import Line, Panel

PANELS = (
    Panel("loss", (Line("loss", "training batches"), Line("eval_loss", "held-out rows"))),
    Panel("reward", (Line("rewards/chosen", "chosen"), Line("eval_rewards/chosen", "chosen, held out"))),
    Panel("gradient norm", (Line("grad_norm", "before clipping"),)),
)


def test_a_curve_has_the_panels_that_have_data(tmp_path):
    heights = []
    for metrics in ({"loss": 0.7}, {"loss": 0.7, "rewards/chosen": 0.1, "eval_rewards/chosen": 0.2}):
        rows = [{"step": step, **metrics} for step in range(3)]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = learning_curve(tmp_path, PANELS, "rows", {"before": 0.69})
        heights.append(matplotlib.image.imread(path).shape[0])
    assert heights == [540, 720], "120 dots an inch; 3 inches, and 1.5 more for each of one and two panels"
