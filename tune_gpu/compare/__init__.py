"""Compare winner and baseline: the same traffic for both in turn, until the difference of every metric is shown or the budget ends."""
