"""One evaluation: deploy a candidate, load it, measure and score it."""
