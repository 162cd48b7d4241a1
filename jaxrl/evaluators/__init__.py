"""Ways to judge a learner: whole episodes, held-out rows, sampled completions."""

from jaxrl.evaluators.episodes import Evaluation as Evaluation
from jaxrl.evaluators.episodes import evaluate as evaluate
from jaxrl.evaluators.episodes import whole_episodes as whole_episodes
from jaxrl.evaluators.held_out import held_out_rows as held_out_rows
from jaxrl.evaluators.held_out import told as told
from jaxrl.evaluators.judged import judged_completions as judged_completions
from jaxrl.evaluators.samples import Ask as Ask
from jaxrl.evaluators.samples import sampled_completions as sampled_completions
