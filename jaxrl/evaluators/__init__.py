"""Ways to judge a learner: whole episodes, held-out rows, sampled completions."""
