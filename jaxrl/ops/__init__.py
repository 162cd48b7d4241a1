"""Functions of arrays: returns, distributions, losses, statistics, minibatches. They know no model and no driver."""
