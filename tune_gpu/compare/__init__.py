"""Winner against baseline: the same traffic to both in turn, until the difference of every metric is shown or the budget ends."""
